import { describe, expect, it } from "vitest";
import { ago, bytes, compact, duration, elapsed, percent, significant } from "./format";

describe("numbers with units", () => {
  it("shortens counts to three digits", () => {
    expect(compact(2_870_000)).toBe("2.87M");
    expect(compact(999)).toBe("999");
    expect(compact(999_900)).toBe("1M");
    expect(compact(91_900_000, "MACs")).toBe("91.9MMACs");
  });

  it("shows a missing value as a dash", () => {
    expect([compact(null), percent(undefined), bytes(null), duration(null)]).toEqual(["–", "–", "–", "–"]);
  });

  it("keeps small numbers readable", () => {
    expect(significant(0.00012)).toBe("1.2e-4");
    expect(significant(0)).toBe("0");
    expect(significant(Number.NaN)).toBe("NaN");
  });

  it("writes bytes in decimal units", () => {
    expect(bytes(512)).toBe("512 B");
    expect(bytes(36_700_000)).toBe("36.7 MB");
    expect(bytes(999_600)).toBe("1 MB");
  });
});

describe("times", () => {
  it("writes durations with at most two units", () => {
    expect(duration(0.85)).toBe("850 ms");
    expect(duration(185)).toBe("3 min 5 s");
    expect(duration(7200)).toBe("2 h");
    expect(duration(3 * 86_400 + 4 * 3600 + 59)).toBe("3 d 4 h");
  });

  it("counts from a time of the API", () => {
    const now = Date.parse("2026-01-01T00:10:00Z");
    expect(ago("2026-01-01T00:05:00Z", now)).toBe("5 min ago");
    expect(ago("2026-01-01T00:10:30Z", now)).toBe("now");
    expect(elapsed("2026-01-01T00:00:00Z", null, now)).toBe(600);
  });
});
