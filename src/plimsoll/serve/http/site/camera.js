// The camera: one shot, or an answer for every frame that the service can keep up with.
import { answered, flagged, summary, unanswered } from "./answer.js";
import { byId } from "./elements.js";
import { overlay } from "./overlay.js";
import { NoAnswer } from "./service.js";

const WIDEST = 640;
const QUALITY = 0.85;
const PAUSE_MS = 100;
const SPOKEN_EVERY_MS = 3000;

const video = () => byId("video");
const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

export const possible = () => Boolean(navigator.mediaDevices?.getUserMedia);

/** `ask(blob, name)` answers a picture, `take(file)` shows one among the others, `say(text)` tells listeners, `now()` is the model and the threshold. */
export function prepare({ ask, take, say, now }) {
  byId("camera").addEventListener("click", () => open(say));
  byId("shoot").addEventListener("click", async () => take(new File([await frame(Infinity)], "camera.jpg", { type: "image/jpeg" })));
  byId("stop").addEventListener("click", close);
  byId("live").addEventListener("click", () => {
    if (isLive()) setLive(false);
    else watch({ ask, say, now });
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
  byId("seen").replaceChildren();
  clear();
}

const clear = () => byId("viewfinder").querySelector(".overlay")?.remove();

async function frame(widest) {
  const { videoWidth, videoHeight } = video();
  const scale = Math.min(1, widest / videoWidth);
  const canvas = Object.assign(document.createElement("canvas"), { width: Math.round(videoWidth * scale), height: Math.round(videoHeight * scale) });
  canvas.getContext("2d").drawImage(video(), 0, 0, canvas.width, canvas.height);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", QUALITY));
}

async function watch({ ask, say, now }) {
  setLive(true);
  let spoken = 0;
  while (isLive() && video().srcObject) {
    if (document.hidden) {
      await pause(500);
      continue;
    }
    const blob = await frame(WIDEST);
    const size = [Math.min(video().videoWidth, WIDEST), Math.round((video().videoHeight * Math.min(video().videoWidth, WIDEST)) / video().videoWidth)];
    try {
      const answer = await ask(blob, "live.jpg");
      const { model, threshold } = now();
      if (!isLive()) return;
      clear();
      const drawing = overlay(answer.row, size, 1, threshold);
      if (drawing) video().after(drawing);
      byId("seen").replaceChildren(...answered(model, answer, threshold));
      byId("viewfinder").classList.toggle("high", flagged(model, answer.row, threshold));
      if (performance.now() - spoken > SPOKEN_EVERY_MS) {
        spoken = performance.now();
        say(`Camera: ${summary(model, answer.row, threshold).filter(Boolean).join(", ")}`);
      }
      await pause(PAUSE_MS);
    } catch (error) {
      if (!(error instanceof NoAnswer)) throw error;
      clear();
      byId("seen").replaceChildren(...unanswered(error));
      await pause(1000 * Math.max(error.retryAfter, 1));
    }
  }
}
