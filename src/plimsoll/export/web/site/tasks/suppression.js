// Non-maximum suppression: greedy as most networks are trained for, and weighted as MediaPipe does it. A candidate is
// {box: [x0, y0, x1, y1], score, label, points, coefficients}, in the network's own coordinates.
const MAX_CANDIDATES = 30_000;

const best = (candidates) => candidates.toSorted((a, b) => b.score - a.score);

const area = ([x0, y0, x1, y1]) => Math.max(x1 - x0, 0) * Math.max(y1 - y0, 0);

/** Do two boxes overlap by more than `iou`? One without an area overlaps nothing. */
function overlap(a, b, iou) {
  const width = Math.max(Math.min(a.box[2], b.box[2]) - Math.max(a.box[0], b.box[0]), 0);
  const shared = width * Math.max(Math.min(a.box[3], b.box[3]) - Math.max(a.box[1], b.box[1]), 0);
  return shared > iou * (area(a.box) + area(b.box) - shared);
}

/** What greedy suppression leaves, best first: within each label, or across all. Of equal scores the earlier box goes first. */
export function suppress(candidates, iou, { acrossLabels = false, most = Infinity } = {}) {
  const staying = [];
  for (const candidate of best(candidates).slice(0, MAX_CANDIDATES)) {
    if (staying.length >= most) break;
    const covered = staying.some((other) => (acrossLabels || other.label === candidate.label) && overlap(other, candidate, iou));
    if (!covered) staying.push(candidate);
  }
  return staying;
}

/** One box for each group that overlaps its best: the mean of their positions and points, weighted by their scores. */
export function blend(candidates, iou, most) {
  let remaining = best(candidates).slice(0, MAX_CANDIDATES);
  const blended = [];
  while (remaining.length && blended.length < most) {
    const [first] = remaining;
    const inGroup = (other) => other === first || (other.label === first.label && overlap(first, other, iou));
    const group = remaining.filter(inGroup);
    const total = group.reduce((sum, { score }) => sum + score, 0);
    const mean = (of) => group.reduce((sum, member) => sum + (member.score / total) * of(member), 0);
    const box = first.box.map((_, at) => mean((member) => member.box[at]));
    const points = first.points?.map((point, at) => point.map((_, axis) => mean((member) => member.points[at][axis])));
    blended.push({ ...first, box, points });
    remaining = remaining.filter((other) => !inGroup(other));
  }
  return blended;
}

export { best };
