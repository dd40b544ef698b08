import { useCallback, useState } from "react";
import { randomKey } from "../../api/client";
import { chosen, MOST_IMAGES, type QueryImage } from "./images";

export interface Images {
  images: QueryImage[];
  problems: string[];
  add: (files: File[]) => void;
  remove: (id: string) => void;
  clear: () => void;
}

/** The images of a query. With `most` 1, a new one replaces the one before. */
export function useImages(most = MOST_IMAGES, onAdded?: () => void): Images {
  const [{ images, problems }, setState] = useState<{ images: QueryImage[]; problems: string[] }>({ images: [], problems: [] });
  const add = useCallback(
    (files: File[]) => {
      if (files.length === 0) return;
      setState((before) => {
        const present = most === 1 ? [] : before.images;
        const { accepted, problems } = chosen(present, files, most);
        const added = accepted.map((file) => ({ id: randomKey(), name: file.name || "pasted image", content: file }));
        return { images: added.length > 0 ? [...present, ...added] : before.images, problems };
      });
      onAdded?.();
    },
    [most, onAdded],
  );
  const remove = useCallback(
    (id: string) => setState((before) => ({ images: before.images.filter((image) => image.id !== id), problems: [] })),
    [],
  );
  const clear = useCallback(() => setState({ images: [], problems: [] }), []);
  return { images, problems, add, remove, clear };
}
