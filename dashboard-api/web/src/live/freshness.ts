/**
 * How old the data is, in words the page can show: fresh, ageing, stale, or waiting for history.
 *
 * The engine says about once a second that it lives and where it stands. A view that did not change is as fresh
 * as that word; so age is the time since the engine was last heard, not since a number last moved.
 */
import type { Board } from './store';

/** Status expected once a second: five missed ones are odd, fifteen are an outage. */
export const AGEING_AFTER_MS = 5_000;
export const STALE_AFTER_MS = 15_000;
/** A cut shorter than this is called reconnecting, a longer one offline. */
export const OFFLINE_AFTER_MS = 15_000;

export type Freshness = 'unknown' | 'fresh' | 'ageing' | 'stale';

/** What freshness is judged by. */
type Heard = Pick<Board, 'engineSeenMs'>;
type Standing = Pick<Board, 'connection' | 'status' | 'engineSeenMs' | 'paused'>;

export function dataAgeMs(board: Heard, nowMs: number): number | null {
  return board.engineSeenMs === null ? null : Math.max(0, nowMs - board.engineSeenMs);
}

export function freshness(board: Heard, nowMs: number): Freshness {
  const age = dataAgeMs(board, nowMs);
  if (age === null) return 'unknown';
  if (age >= STALE_AFTER_MS) return 'stale';
  return age >= AGEING_AFTER_MS ? 'ageing' : 'fresh';
}

/**
 * The business time of what the page shows: that of the newest epoch, be it the engine's last word on itself or a
 * view that changed since. Not the largest time, since a history that is replayed begins earlier again.
 */
export function businessTimeMs(board: Pick<Board, 'status' | 'views'>): number | null {
  let epoch = board.status?.epoch ?? -1;
  let asOfMs = board.status?.as_of_ms ?? null;
  for (const view of Object.values(board.views)) {
    if (view.epoch > epoch && view.asOfMs !== null) {
      epoch = view.epoch;
      asOfMs = view.asOfMs;
    }
  }
  return asOfMs;
}

export type Pill =
  | { readonly kind: 'connecting' | 'live' | 'paused' | 'refused' }
  | { readonly kind: 'catching_up'; readonly left: number | null }
  | { readonly kind: 'silent'; readonly ageMs: number }
  | { readonly kind: 'reconnecting'; readonly inSeconds: number | null }
  | { readonly kind: 'offline'; readonly sinceMs: number; readonly inSeconds: number | null };

/** The one state the header shows; the worst news wins. */
export function pillOf(board: Standing, nowMs: number, onLine: boolean): Pill {
  const { connection, status } = board;
  if (connection.kind === 'connecting') return { kind: 'connecting' };
  if (connection.kind === 'refused') return { kind: 'refused' };
  if (connection.kind === 'lost') {
    const inSeconds =
      connection.nextAttemptMs === null || !onLine
        ? null
        : Math.max(0, Math.ceil((connection.nextAttemptMs - nowMs) / 1_000));
    const offline = !onLine || nowMs - connection.sinceMs >= OFFLINE_AFTER_MS;
    return offline
      ? { kind: 'offline', sinceMs: connection.sinceMs, inSeconds }
      : { kind: 'reconnecting', inSeconds };
  }
  const age = dataAgeMs(board, nowMs);
  if (age !== null && age >= STALE_AFTER_MS) return { kind: 'silent', ageMs: age };
  if (status?.phase === 'catching_up') return { kind: 'catching_up', left: status.lag_records };
  return { kind: board.paused ? 'paused' : 'live' };
}
