// Landmarks: [1, …] with points x columns values, point by point.
import { activated, decimal, named, numeric, position, requireFinite, shape } from "./arrays.js";

/** The row {points, presence} and, where the network says how sure it is of each point, visibility. */
export function landmarks(spec, outputs, threshold, geometry) {
  const { points, presence, visibility } = placedPoints(spec, outputs, geometry);
  if (threshold !== null && presence !== null && presence < threshold) return { points: [], presence };
  const row = { points: points.map((point) => point.map(position)), presence };
  return visibility ? { ...row, visibility } : row;
}

/** The same with the points where the geometry leads, nothing rounded. */
export function placedPoints(spec, outputs, geometry) {
  const { data, dims } = numeric(named(outputs, spec.tensor));
  const columns = spec.columns.length ? spec.columns : ["x", "y", "z"].slice(0, spec.dimensions);
  if (data.length !== spec.points * columns.length) throw new Error(`the network's output is ${shape({ dims })}, the Spec has ${spec.points} points of ${columns.length} values`);
  requireFinite(data, "points");
  const presence = presenceOf(spec, outputs);
  const size = spec.normalized ? [geometry.inputWidth, geometry.inputHeight, geometry.inputWidth] : [1, 1, 1];
  const axes = ["x", "y", "z"].filter((name) => columns.includes(name));
  const points = Array.from({ length: spec.points }, (_, index) => {
    const [x, y, z] = axes.map((name, axis) => data[index * columns.length + columns.indexOf(name)] * size[axis]);
    const inPicture = geometry.point(x, y);
    return z === undefined ? inPicture : [...inPicture, z * geometry.x.scale]; // z has the scale of x, as MediaPipe defines it
  });
  const at = columns.indexOf("visibility");
  if (at < 0) return { points, presence };
  const visible = Float32Array.from(points, (_, index) => data[index * columns.length + at]);
  return { points, presence, visibility: Array.from(activated(visible, spec.activation), decimal) };
}

function presenceOf(spec, outputs) {
  if (spec.presence === null) return null;
  const output = outputs[spec.presence];
  if (output?.data.length !== 1) throw new Error(`the output '${spec.presence}' is ${output ? shape(output) : "absent"}; expected one value for each picture`);
  const { data } = numeric(output);
  requireFinite(data, "presences");
  return decimal(activated(data, spec.activation)[0]);
}
