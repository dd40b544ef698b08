/** An image of the API, which needs the token in a header: fetched when it comes into view, and shown from memory. */
import { Box, Skeleton } from "@mantine/core";
import { useInViewport } from "@mantine/hooks";
import { IconPhotoOff } from "@tabler/icons-react";
import { useQuery } from "@tanstack/react-query";
import { useEffect, useState } from "react";
import { send } from "../api/client";

export function AuthorisedImage({ src, alt, size = 128 }: { src: string; alt: string; size?: number }) {
  const { ref, inViewport } = useInViewport();
  const picture = useQuery({
    queryKey: ["image", src],
    queryFn: async ({ signal }) => (await send(src, { signal })).blob(),
    enabled: inViewport,
    staleTime: Infinity,
    gcTime: 60_000,
  });
  const url = useObjectUrl(picture.data);
  return (
    <Box ref={ref} w={size} h={size} style={{ display: "grid", placeItems: "center", overflow: "hidden" }}>
      {url !== null ? (
        <img src={url} alt={alt} style={{ width: "100%", height: "100%", objectFit: "contain" }} />
      ) : picture.isError ? (
        <IconPhotoOff role="img" aria-label={`${alt}: no picture`} opacity={0.5} />
      ) : (
        <Skeleton w={size} h={size} />
      )}
    </Box>
  );
}

/** Return an address of a blob, which is released when the blob changes. */
export function useObjectUrl(blob: Blob | undefined): string | null {
  const [url, setUrl] = useState<string | null>(null);
  useEffect(() => {
    if (blob === undefined) return setUrl(null);
    const made = URL.createObjectURL(blob);
    setUrl(made);
    return () => URL.revokeObjectURL(made);
  }, [blob]);
  return url;
}
