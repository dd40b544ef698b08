/** The text of the editor survives a reload of the page, for each template or job that it came from. */

const PREFIX = "tinyclip.draft.";

export function readDraft(source: string): string | null {
  try {
    return sessionStorage.getItem(PREFIX + source);
  } catch {
    return null; // the browser keeps nothing
  }
}

export function writeDraft(source: string, text: string | null): void {
  try {
    if (text === null) sessionStorage.removeItem(PREFIX + source);
    else sessionStorage.setItem(PREFIX + source, text);
  } catch {
    // the browser keeps nothing, or the text is too large
  }
}
