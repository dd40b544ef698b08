import { keepPreviousData, useQuery } from "@tanstack/react-query";
import type { QueryImage } from "../images";
import { query } from "../queries";

/** What is searched for: exactly one of the three. */
export type Wanted = { text: string } | { item: string } | { image: QueryImage };

export interface SearchAsked {
  index: string;
  wanted: Wanted | null;
  top: number;
  filter: Record<string, unknown> | null;
  isCompatible: boolean;
}

/** Search an index with a deployment; while another answer is awaited, the one before stays. */
export function useSearch(deployment: string, asked: SearchAsked | null) {
  return useQuery({
    queryKey: ["search", deployment, asked && { ...asked, wanted: keyOf(asked.wanted) }],
    queryFn: ({ signal }) => query("/v1/deployments/{name}/search", deployment, bodyOf(asked!), signal),
    enabled: asked !== null && asked.index !== "" && asked.wanted !== null,
    placeholderData: keepPreviousData,
    staleTime: 30_000,
    refetchOnWindowFocus: false,
  });
}

function keyOf(wanted: Wanted | null): unknown {
  return wanted !== null && "image" in wanted ? { image: wanted.image.id } : wanted;
}

/** An image is sent as it is in a form, everything else as JSON. */
function bodyOf({ index, wanted, top, filter, isCompatible }: SearchAsked): FormData | object {
  if (wanted === null || !("image" in wanted)) {
    return {
      index,
      top_k: top,
      ...wanted,
      ...(filter === null ? {} : { filter }),
      ...(isCompatible ? { compatible: true } : {}),
    };
  }
  const form = new FormData();
  form.append("image", wanted.image.content, wanted.image.name);
  form.append("index", index);
  form.append("top_k", String(top));
  if (filter !== null) form.append("filter", JSON.stringify(filter));
  if (isCompatible) form.append("compatible", "true");
  return form;
}
