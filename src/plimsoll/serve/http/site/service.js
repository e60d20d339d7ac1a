// Speak with the service: its models, its answers, its proofs.
const KEY = "plimsoll-key";
const KINDS = {
  input: "It can’t be asked like this",
  image: "It can’t be read",
  overloaded: "The service has no room now",
  unavailable: "The model is not available",
  deadline: "The answer came too late",
  failed: "The model failed",
  network: "The service can’t be reached",
};

/** Why there is no answer; `kind` is the service's, or "network". */
export class NoAnswer extends Error {
  constructor(kind, message, hint = "", retryAfter = 0, status = 0) {
    super(message);
    Object.assign(this, { kind, hint, retryAfter, status });
  }

  get title() {
    return KINDS[this.kind] ?? "There is no answer";
  }
}

let key = remembered();

function remembered() {
  try {
    return sessionStorage.getItem(KEY) ?? "";
  } catch {
    return ""; // a browser that keeps nothing
  }
}

export const hasKey = () => key !== "";

export function useKey(given) {
  key = given.trim();
  try {
    sessionStorage.setItem(KEY, key);
  } catch {
    // then it is asked for again
  }
}

async function ask(path, options = {}) {
  const headers = { ...options.headers, ...(key ? { Authorization: `Bearer ${key}` } : {}) };
  let response;
  try {
    response = await fetch(path, { ...options, headers, cache: "no-store", referrerPolicy: "no-referrer" });
  } catch {
    throw new NoAnswer("network", "Is it still running, and is this device still connected?");
  }
  if (response.ok) return response;
  const retryAfter = Number(response.headers.get("Retry-After")) || 0;
  const { error } = await response.json().catch(() => ({}));
  throw new NoAnswer(error?.kind ?? "failed", error?.message ?? `the service answered with status ${response.status}`, error?.hint, retryAfter, response.status);
}

export async function models() {
  return (await (await ask("v1/models")).json()).models;
}

/** The answer to one picture: {row, milliseconds, batch, roundTrip}; throws NoAnswer. */
export async function predict(model, picture, name, threshold) {
  const query = new URLSearchParams({ model });
  if (threshold !== null) query.set("threshold", threshold);
  const body = new FormData();
  body.append("file", picture, name);
  const started = performance.now();
  const response = await ask(`v1/predict?${query}`, { method: "POST", body });
  const { results } = await response.json();
  const [result] = results;
  if (result.error) throw new NoAnswer(result.error.kind, result.error.message, result.error.hint);
  return { row: result.answer, milliseconds: result.milliseconds, batch: result.batch, roundTrip: performance.now() - started };
}

// Frames of a camera go over one connection, where there can be one: they need no request of their own.

let channel = null;
let posting = typeof WebSocket === "undefined";

/** As `predict`, for a frame of a camera; a service, or a proxy before it, that speaks no WebSocket gets posts. */
export async function answerFrame(model, picture, threshold) {
  const query = new URLSearchParams({ model });
  if (threshold !== null) query.set("threshold", threshold);
  if (!posting && (channel?.query !== `${query}` || channel.socket.readyState !== WebSocket.OPEN)) {
    hangUp();
    channel = await opened(`${query}`);
    posting = channel === null;
  }
  return posting ? predict(model, picture, "live.jpg", threshold) : exchanged(channel.socket, picture);
}

/** End the connection that frames go over. */
export function hangUp() {
  channel?.socket.close();
  channel = null;
}

function opened(query) {
  const address = new URL(`v1/frames?${query}`, document.baseURI);
  address.protocol = address.protocol.replace("http", "ws");
  return new Promise((resolve) => {
    const socket = new WebSocket(address, key ? ["plimsoll", `key.${key}`] : ["plimsoll"]);
    socket.onopen = () => resolve({ query, socket });
    socket.onclose = () => resolve(null); // what refused it says so to the post that follows
  });
}

function exchanged(socket, picture) {
  const started = performance.now();
  return new Promise((resolve, reject) => {
    socket.onclose = () => reject(new NoAnswer("network", "The connection was closed."));
    socket.onmessage = ({ data }) => {
      const { answer, error, milliseconds, batch, retry_after: retryAfter } = JSON.parse(data);
      if (error) reject(new NoAnswer(error.kind, error.message, error.hint, retryAfter ?? 0));
      else resolve({ row: answer, milliseconds, batch, roundTrip: performance.now() - started });
    };
    socket.send(picture);
  });
}

const below = (model, what) => `v1/models/${encodeURIComponent(model)}/${what}`;

export const reportAddress = (model) => below(model, "report");

/** What the model's report proves; null where it has none. */
export async function proof(model) {
  try {
    return await (await ask(below(model, "proof"))).json();
  } catch (error) {
    if (error.status === 404) return null;
    throw error;
  }
}

/** The report as a file, for services whose links can't be followed without a key. */
export async function report(model) {
  return (await ask(reportAddress(model))).blob();
}
