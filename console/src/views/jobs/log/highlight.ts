/** Return a text in parts, of which every second one is what was searched for, in any case. */
export function highlight(text: string, search: string): string[] {
  if (search === "") return [text];
  const parts: string[] = [];
  const folded = text.toLowerCase();
  const wanted = search.toLowerCase();
  // Characters whose lower case is longer would shift all places that follow.
  if (folded.length !== text.length) return [text];
  let from = 0;
  for (let place = folded.indexOf(wanted); place >= 0; place = folded.indexOf(wanted, from)) {
    parts.push(text.slice(from, place), text.slice(place, place + wanted.length));
    from = place + wanted.length;
  }
  return [...parts, text.slice(from)];
}
