/** The frame of all views: navigation, the caller's project, the colour scheme, and what replaces a view without a token. */
import {
  ActionIcon,
  Alert,
  AppShell,
  Burger,
  Group,
  Image,
  NavLink,
  Text,
  useMantineColorScheme,
  useComputedColorScheme,
} from "@mantine/core";
import { useDisclosure } from "@mantine/hooks";
import {
  IconActivity,
  IconBrandDatabricks,
  IconCube,
  IconFileCode,
  IconKey,
  IconListDetails,
  IconLogout,
  IconMoon,
  IconPhotoSearch,
  IconPlugConnectedX,
  IconPlus,
  IconSun,
  IconTargetArrow,
} from "@tabler/icons-react";
import { useQuery } from "@tanstack/react-query";
import { Outlet, useLocation } from "@tanstack/react-router";
import { lazy, Suspense, useEffect } from "react";
import { api, ask } from "../api/client";
import { Loading } from "../ui/states";
import { MenuLink } from "../ui/links";
import { offlineSince } from "./connection";
import icon from "./icon.svg";
import { signInNeeded, signOut, token } from "./session";
import { useStore } from "./store";

const SignIn = lazy(() => import("./SignIn"));

const VIEWS = [
  { to: "/jobs", label: "Jobs", icon: IconListDetails },
  { to: "/new-job", label: "New job", icon: IconPlus },
  { to: "/searches", label: "Searches", icon: IconTargetArrow },
  { to: "/models", label: "Models", icon: IconCube },
  { to: "/datasets", label: "Data sets", icon: IconBrandDatabricks },
  { to: "/playground", label: "Playground", icon: IconPhotoSearch },
  { to: "/service", label: "Service", icon: IconActivity },
  { to: "/tokens", label: "Tokens", icon: IconKey },
] as const;

export function Shell() {
  const [opened, { toggle, close }] = useDisclosure();
  const { pathname } = useLocation();
  const needsSignIn = useStore(signInNeeded);
  useEffect(close, [pathname, close]);
  return (
    <AppShell header={{ height: 52 }} navbar={{ width: 190, breakpoint: "sm", collapsed: { mobile: !opened } }} padding="md">
      <a href="#content" className="skip-link">
        Skip to the content
      </a>
      <AppShell.Header px="md">
        <Group h="100%" justify="space-between" wrap="nowrap">
          <Group gap="sm" wrap="nowrap">
            <Burger opened={opened} onClick={toggle} hiddenFrom="sm" size="sm" aria-label="Navigation" />
            <Image src={icon} w={26} h={26} alt="" />
            <Text fw={700}>TinyCLIP</Text>
            <Project />
          </Group>
          <Group gap="xs" wrap="nowrap">
            <SignOut />
            <ColorScheme />
          </Group>
        </Group>
      </AppShell.Header>
      <AppShell.Navbar p="xs" aria-label="Views">
        {VIEWS.map((view) => (
          <MenuLink
            key={view.to}
            to={view.to}
            label={view.label}
            leftSection={<view.icon size={18} aria-hidden />}
            active={isUnder(pathname, view.to)}
          />
        ))}
        <NavLink href="/docs" target="_blank" label="API" leftSection={<IconFileCode size={18} aria-hidden />} mt="auto" />
      </AppShell.Navbar>
      <AppShell.Main id="content">
        <Offline />
        <Suspense fallback={<Loading />}>{needsSignIn ? <SignIn /> : <Outlet />}</Suspense>
      </AppShell.Main>
    </AppShell>
  );
}

function isUnder(pathname: string, view: string): boolean {
  const alsoUnder: Record<string, string> = {
    "/compare-jobs": "/jobs",
    "/compare-models": "/models",
    "/new-search": "/searches",
  };
  const shown = alsoUnder[pathname] ?? pathname;
  return shown === view || shown.startsWith(`${view}/`);
}

/** The caller, whose scopes the API's `actions` already respect. */
export function useMe() {
  return useQuery({ queryKey: ["me"], queryFn: () => ask(api.GET("/v1/me")), staleTime: 60_000 });
}

function Project() {
  const me = useMe();
  if (me.data === undefined || me.data.auth === "none") return null;
  return (
    <Text size="sm" c="dimmed" className="user-text">
      {me.data.project}
    </Text>
  );
}

function SignOut() {
  if (useStore(token) === null) return null;
  return (
    <ActionIcon
      variant="subtle"
      color="gray"
      onClick={signOut}
      aria-label="Sign out"
      title="Sign out: forget the token of this tab"
    >
      <IconLogout size={18} />
    </ActionIcon>
  );
}

function ColorScheme() {
  const { setColorScheme } = useMantineColorScheme();
  const isDark = useComputedColorScheme("light") === "dark";
  const label = isDark ? "Light colours" : "Dark colours";
  return (
    <ActionIcon
      variant="subtle"
      color="gray"
      onClick={() => setColorScheme(isDark ? "light" : "dark")}
      aria-label={label}
      title={label}
    >
      {isDark ? <IconSun size={18} /> : <IconMoon size={18} />}
    </ActionIcon>
  );
}

function Offline() {
  if (useStore(offlineSince) === null) return null;
  return (
    <Alert color="orange" icon={<IconPlugConnectedX />} title="The server cannot be reached" mb="md" role="status">
      What is shown is from before. The console asks again every two seconds and goes on by itself; training is not affected.
    </Alert>
  );
}
