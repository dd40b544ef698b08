/** Values that keep their identity while they say the same, so that what depends on them is not made again. */
import { useRef } from "react";

/** Return the value of before as long as its JSON is the same. */
export function useSame<T>(value: T): T {
  const written = JSON.stringify(value);
  const kept = useRef({ value, written });
  if (kept.current.written !== written) kept.current = { value, written };
  return kept.current.value;
}

/** Return the list of before as long as its items are the same ones. */
export function useSameItems<T>(items: readonly T[]): readonly T[] {
  const kept = useRef(items);
  const isSame = items.length === kept.current.length && items.every((item, place) => Object.is(item, kept.current[place]));
  if (!isSame) kept.current = items;
  return kept.current;
}
