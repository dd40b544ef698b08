import { Box, Center, UnstyledButton } from "@mantine/core";
import { IconPhotoOff } from "@tabler/icons-react";
import { memo, type ReactNode } from "react";
import { AuthorisedImage } from "./AuthorisedImage";
import type { GridImage } from "./ImageGrid";
import classes from "./ImageTile.module.css";

interface Props {
  image: GridImage;
  size: number;
  captionHeight: number;
  place: number;
  count: number;
  tabIndex: number;
  onFocus: (place: number) => void;
  onOpen: (id: string) => void;
  action?: ReactNode;
}

/** A thumbnail with its caption, which opens the details. */
export const ImageTile = memo(function ImageTile({
  image,
  size,
  captionHeight,
  place,
  count,
  tabIndex,
  onFocus,
  onOpen,
  action,
}: Props) {
  return (
    <Box role="listitem" aria-setsize={count} aria-posinset={place + 1} className={classes.tile} onFocus={() => onFocus(place)}>
      <UnstyledButton className={classes.open} data-place={place} tabIndex={tabIndex} onClick={() => onOpen(image.id)}>
        <Center className={classes.picture} h={size}>
          {image.src === null ? (
            <IconPhotoOff role="img" aria-label={`${image.alt}: no picture`} opacity={0.5} />
          ) : (
            <AuthorisedImage src={image.src} alt={image.alt} size={size} />
          )}
        </Center>
        <Box className={classes.caption} h={captionHeight}>
          {image.caption}
        </Box>
      </UnstyledButton>
      {action !== undefined && <Box className={classes.action}>{action}</Box>}
    </Box>
  );
});
