/** Mantine's links and buttons, with the router's typed addresses. */
import { Anchor, Button, NavLink, type AnchorProps, type ButtonProps, type NavLinkProps } from "@mantine/core";
import { createLink } from "@tanstack/react-router";
import type { AnchorHTMLAttributes, Ref } from "react";

type Html = Omit<AnchorHTMLAttributes<HTMLAnchorElement>, keyof AnchorProps | "color">;

export const TextLink = createLink(function TextLink({ ref, ...props }: AnchorProps & Html & { ref?: Ref<HTMLAnchorElement> }) {
  return <Anchor ref={ref} {...props} />;
});

export const ButtonLink = createLink(function ButtonLink({
  ref,
  ...props
}: ButtonProps & Html & { ref?: Ref<HTMLAnchorElement> }) {
  return <Button ref={ref} component="a" {...props} />;
});

export const MenuLink = createLink(function MenuLink({ ref, ...props }: NavLinkProps & Html & { ref?: Ref<HTMLAnchorElement> }) {
  return <NavLink ref={ref} {...props} />;
});
