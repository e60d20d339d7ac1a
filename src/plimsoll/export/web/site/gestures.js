// What a hand does, from its 21 points alone, by geometry: Plimsoll's `inference/gestures.py`, which names the points and the reasons.
const STRETCHED = 1.15;
const THUMB_STRETCHED = 1.05;
const TOUCHING = 0.35;
const HEART = 0.7;
const ROOTS = [5, 9, 13, 17];
/** Index, middle, ring and little finger, 1 where it is stretched. */
const FINGERS = { "0000": "fist", 1111: "open", 1000: "point", 1100: "victory", 1001: "horns" };

const distance = ([x0, y0], [x1, y1]) => Math.sqrt((x0 - x1) ** 2 + (y0 - y1) ** 2);

/** The gesture of each hand in a picture; two that form a heart together do that. */
export function gesturesOf(hands) {
  const gestures = hands.map(gestureOf);
  for (let first = 0; first < hands.length; first += 1) {
    for (let second = first + 1; second < hands.length; second += 1) {
      if (isHeart(hands[first], hands[second])) gestures[first] = gestures[second] = "heart";
    }
  }
  return gestures;
}

function gestureOf(points) {
  const palm = Math.max(distance(points[0], points[9]), 1e-6);
  const fingers = ROOTS.map((root) => Number(isStretched(points, root))).join("");
  const thumb = thumbIsStretched(points, palm);
  if (distance(points[4], points[8]) < TOUCHING * palm && !isFolded(points, 5)) return "pinch";
  if (thumb && fingers === "0000") {
    const rise = (points[0][1] - points[4][1]) / palm;
    if (rise > 0.5) return "thumb up";
    return rise < -0.5 ? "thumb down" : "hand";
  }
  if (thumb && fingers === "0001") return "call";
  if (!thumb && fingers === "1111") return "hand";
  return FINGERS[fingers] ?? "hand";
}

function isHeart(first, second) {
  const near = (HEART * (distance(first[0], first[9]) + distance(second[0], second[9]))) / 2;
  const touch = [4, 8].every((tip) => distance(first[tip], second[tip]) < near);
  return touch && first[8][1] < first[4][1] && second[8][1] < second[4][1];
}

const isStretched = (points, root) => distance(points[0], points[root + 3]) > STRETCHED * distance(points[0], points[root + 1]);

const isFolded = (points, root) => distance(points[0], points[root + 3]) < distance(points[0], points[root]);

function thumbIsStretched(points, palm) {
  const away = distance(points[4], points[17]) > THUMB_STRETCHED * distance(points[3], points[17]);
  return away && Math.min(...[5, 6, 9, 10].map((joint) => distance(points[4], points[joint]))) > 0.4 * palm;
}
