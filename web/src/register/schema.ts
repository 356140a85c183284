// The parts of JSON Schema that the estimator's document uses.

export interface Schema {
  $ref?: string;
  description?: string;
  default?: unknown;
  type?: string | string[];
  enum?: unknown[];
  const?: unknown;
  anyOf?: Schema[];
  properties?: Record<string, Schema>;
  required?: string[];
  items?: Schema;
  $defs?: Record<string, Schema>;
}

export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };
export type Fields = { [key: string]: Json };

/** What a schema stands for, with its own description and default kept. */
export function resolve(root: Schema, schema: Schema, kind: unknown): Schema {
  let found = schema;
  if (found.$ref) {
    const target = root.$defs?.[found.$ref.split("/").pop()!] ?? {};
    found = { ...target, ...found, $ref: undefined };
  }
  const choices = found.anyOf?.filter((one) => one.type !== "null") ?? [];
  const parts = choices.map((one) => resolve(root, one, kind));
  const objects = parts.filter((one) => one.properties);
  if (objects.length > 0) {
    // With two forms, as of `ukf`, the second is that of the dual estimator.
    const chosen = kind === "dual" ? objects[objects.length - 1]! : objects[0]!;
    return { ...chosen, ...found, anyOf: undefined, properties: chosen.properties, type: "object" };
  }
  if (parts.length === 1) return { ...parts[0]!, ...found, anyOf: parts[0]!.anyOf };
  return found;
}

export function typeOf(schema: Schema): "object" | "list" | "flags" | "choice" | "boolean" | "number" | "value" {
  const types = [schema.type ?? []].flat();
  if (schema.properties) return "object";
  if (schema.enum) return "choice";
  if (types.includes("array") && schema.items?.enum) return "flags";
  if (types.includes("array") && schema.items?.$ref) return "list";
  if (types.includes("boolean")) return "boolean";
  if (types.includes("number") || types.includes("integer")) return "number";
  return "value";
}

/** The least that a part must have. */
export function skeleton(root: Schema, schema: Schema, kind: unknown): Json {
  const found = resolve(root, schema, kind);
  if (!found.properties) return typeOf(found) === "list" ? [] : "";
  const made: Fields = {};
  for (const name of found.required ?? []) {
    const part = resolve(root, found.properties[name] ?? {}, kind);
    if (part.properties) made[name] = skeleton(root, part, kind);
  }
  return made;
}

/** A document to begin with: a small cell whose capacity and resistance are learnt. */
export function example(): Fields {
  return {
    kind: "joint",
    asoh: {
      updatable: ["q_t", "r0"],
      q_t: { base_values: 2.5, updatable: ["base_values"] },
      ocv: { ocv_ref: { base_values: [3.0, 3.42, 3.52, 3.59, 3.63, 3.68, 3.77, 3.88, 3.98, 4.08, 4.2] } },
      r0: { base_values: 0.04, updatable: ["base_values"] },
    },
    initial_transients: { soc: 0.5 },
    covariance_transient: [[0.01, 0], [0, 1e-10]],
    covariance_asoh: [[0.25, 0], [0, 0.0004]],
    transient_process_noise: [[1e-10, 0], [0, 1e-14]],
    asoh_process_noise: [[1e-7, 0], [0, 1e-10]],
    sensor_noise: 1e-6,
    normalize_asoh: false,
  };
}
