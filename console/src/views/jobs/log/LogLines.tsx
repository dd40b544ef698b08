import { Box, Mark, Text, UnstyledButton } from "@mantine/core";
import { useVirtualizer } from "@tanstack/react-virtual";
import { memo, useEffect, useEffectEvent, useRef, useState } from "react";
import { bytes, dateTime, timeOfDay } from "../../../app/format";
import { visible } from "../../../app/labels";
import { highlight } from "./highlight";
import classes from "./LogLines.module.css";
import type { LogLine } from "./useLog";

/** Longer lines are folded. */
const FOLDED = 600;
const LONGEST = 20_000;
/** The list counts as scrolled to its end this close to it. */
const NEAR_PX = 40;

interface Props {
  lines: readonly LogLine[];
  search: string;
  isFollowing: boolean;
  /** The reader has scrolled up. */
  onLeave: () => void;
}

export function LogLines({ lines, search, isFollowing, onLeave }: Props) {
  const scroller = useRef<HTMLDivElement>(null);
  const [unfolded, setUnfolded] = useState<ReadonlySet<number>>(new Set());
  const virtual = useVirtualizer({
    count: lines.length,
    getScrollElement: () => scroller.current,
    estimateSize: () => 20,
    getItemKey: (index) => lines[index]!.id,
    overscan: 20,
  });
  const top = useRef(0);
  // A log is read from its end, also that of an ended job.
  const scrollToEnd = useEffectEvent(() => {
    if (lines.length > 0) virtual.scrollToIndex(lines.length - 1, { align: "end" });
  });
  const followed = isFollowing ? lines.at(-1)?.id : 0;
  const isBlank = lines.length === 0;
  useEffect(() => scrollToEnd(), [followed, isBlank, search]);

  const onScroll = () => {
    const { scrollTop, scrollHeight, clientHeight } = scroller.current!;
    const wentUp = scrollTop < top.current - 2;
    top.current = scrollTop;
    if (isFollowing && wentUp && scrollHeight - scrollTop - clientHeight > NEAR_PX) onLeave();
  };
  return (
    <div
      ref={scroller}
      className={classes.scroller}
      tabIndex={0}
      role="log"
      aria-label="Log lines"
      aria-live="off"
      onScroll={onScroll}
    >
      <div style={{ height: virtual.getTotalSize(), position: "relative" }}>
        {virtual.getVirtualItems().map((item) => (
          <div
            key={item.key}
            data-index={item.index}
            ref={virtual.measureElement}
            className={classes.row}
            style={{ transform: `translateY(${item.start}px)` }}
          >
            <Line
              line={lines[item.index]!}
              search={search}
              isUnfolded={unfolded.has(lines[item.index]!.id)}
              onUnfold={(id) => setUnfolded((before) => new Set(before).add(id))}
            />
          </div>
        ))}
      </div>
    </div>
  );
}

const Line = memo(function Line({
  line,
  search,
  isUnfolded,
  onUnfold,
}: {
  line: LogLine;
  search: string;
  isUnfolded: boolean;
  onUnfold: (id: number) => void;
}) {
  const message = visible(line.message, isUnfolded ? LONGEST : FOLDED);
  return (
    <div className={classes.line} data-level={line.level}>
      <time dateTime={line.created_at} title={dateTime(line.created_at)} className={classes.time}>
        {timeOfDay(line.created_at)}
      </time>
      <span className={classes.level}>{visible(line.level, 10)}</span>
      <Box component="span" visibleFrom="sm" className={classes.source} title={visible(line.source, 100)}>
        {visible(line.source, 40)}
      </Box>
      <span className={`${classes.message} user-text`}>
        {highlight(message, search).map((part, place) => (place % 2 === 1 ? <Mark key={place}>{part}</Mark> : part))}
        {!isUnfolded && line.message.length > FOLDED && (
          <UnstyledButton onClick={() => onUnfold(line.id)} ml={6}>
            <Text span size="xs" td="underline">
              show all {bytes(line.message.length)}
            </Text>
          </UnstyledButton>
        )}
      </span>
    </div>
  );
});
