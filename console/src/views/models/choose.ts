/** Which versions of the registry the trade-off plot shows. */
import type { Schemas } from "../../api/client";

type Model = Schemas["Model"];

/** Return the models whose name or one of whose aliases contains a text. */
export function search(models: readonly Model[], text: string | undefined): Model[] {
  const wanted = (text ?? "").trim().toLowerCase();
  return models.filter((model) =>
    [model.name, ...Object.keys(model.aliases)].some((name) => name.toLowerCase().includes(wanted)),
  );
}

/** Return at most `most` references: the latest version of every model, then the one before of each, and so on. */
export function newestOfEach(models: readonly Model[], most: number): string[] {
  const chosen: string[] = [];
  for (let age = 0; chosen.length < most; age += 1) {
    const before = chosen.length;
    for (const model of models) {
      const version = model.versions.at(-1 - age);
      if (version !== undefined && chosen.length < most) chosen.push(`${model.name}@${version}`);
    }
    if (chosen.length === before) break;
  }
  return chosen;
}

/** Return pieces of at most `size` items. */
export function pieces<T>(items: readonly T[], size: number): T[][] {
  return Array.from({ length: Math.ceil(items.length / size) }, (_, place) => items.slice(place * size, (place + 1) * size));
}
