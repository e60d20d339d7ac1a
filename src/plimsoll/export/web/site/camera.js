// The camera: one shot, or an answer for every frame that can be kept up with.
import { byId } from "./elements.js";
import { overlay } from "./overlay.js";

const WIDEST = 640;
const QUALITY = 0.85;
const PAUSE_MS = 30;
const HIDDEN_MS = 500;
const SPOKEN_EVERY_MS = 3000;

let ended = () => {};

const video = () => byId("video");
const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

export const possible = () => Boolean(navigator.mediaDevices?.getUserMedia);

/** A canvas as a JPEG file. */
export const encoded = (canvas) => new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", QUALITY));

/**
 * `ask(canvas)` answers a frame with {row}; `described(answer)` says what to show, {elements, words, high, threshold}; `refused(error)` what to
 * show of why there is none, {elements, pause}, in seconds until the next; `take(file)` shows a picture among the others; `say(text)` tells listeners;
 * `ended()` hears that no more frames come.
 */
export function prepare(page) {
  ended = page.ended ?? ended;
  byId("camera").addEventListener("click", () => open(page.say));
  byId("shoot").addEventListener("click", async () => page.take(new File([await encoded(frame(Infinity))], "camera.jpg", { type: "image/jpeg" })));
  byId("stop").addEventListener("click", close);
  byId("live").addEventListener("click", () => {
    if (isLive()) setLive(false);
    else watch(page);
  });
}

async function open(say) {
  try {
    video().srcObject = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" }, audio: false });
    await video().play();
  } catch (error) {
    byId("drop").append(Object.assign(document.createElement("p"), { className: "no", textContent: `The camera can’t be used: ${error.message}` }));
    say(`The camera can’t be used: ${error.message}`);
    return;
  }
  byId("viewfinder").hidden = false;
  byId("camera").hidden = true;
  byId("shoot").focus();
}

function close() {
  setLive(false);
  for (const track of video().srcObject?.getTracks() ?? []) track.stop();
  video().srcObject = null;
  byId("viewfinder").hidden = true;
  byId("camera").hidden = false;
  byId("camera").focus();
}

const isLive = () => byId("live").getAttribute("aria-pressed") === "true";

function setLive(on) {
  byId("live").setAttribute("aria-pressed", String(on));
  byId("live").textContent = on ? "Stop answering" : "Answer live";
  if (on) return;
  ended();
  byId("seen").replaceChildren();
  byId("viewfinder").classList.remove("high");
  clear();
}

const clear = () => byId("viewfinder").querySelector(".overlay")?.remove();

function frame(widest) {
  const { videoWidth, videoHeight } = video();
  const scale = Math.min(1, widest / videoWidth);
  const canvas = Object.assign(document.createElement("canvas"), { width: Math.round(videoWidth * scale), height: Math.round(videoHeight * scale) });
  canvas.getContext("2d").drawImage(video(), 0, 0, canvas.width, canvas.height);
  return canvas;
}

async function watch({ ask, say, described, refused }) {
  setLive(true);
  let spoken = 0;
  while (isLive() && video().srcObject) {
    if (document.hidden) {
      await pause(HIDDEN_MS);
      continue;
    }
    try {
      const canvas = frame(WIDEST);
      const answer = await ask(canvas);
      if (!isLive()) return;
      const { elements, words, high, threshold } = described(answer);
      const drawing = overlay(answer.row, [canvas.width, canvas.height], 1, threshold);
      clear();
      if (drawing) video().after(drawing);
      byId("seen").replaceChildren(...elements);
      byId("viewfinder").classList.toggle("high", high);
      if (performance.now() - spoken > SPOKEN_EVERY_MS) {
        spoken = performance.now();
        say(`Camera: ${words.filter(Boolean).join(", ")}`);
      }
      await pause(PAUSE_MS);
    } catch (error) {
      const { elements, pause: seconds } = refused(error);
      if (!isLive()) return;
      clear();
      byId("seen").replaceChildren(...elements);
      await pause(1000 * seconds);
    }
  }
}
