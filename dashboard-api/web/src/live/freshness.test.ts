import { expect, test } from 'vitest';
import { snapshotOf, statusOf } from '../../test/samples';
import { fromSnapshot } from '../wire/view';
import { businessTimeMs, freshness, pillOf } from './freshness';
import { type Board, EMPTY_BOARD } from './store';

const NOW = 1_000_000;
const board = (more: Partial<Board>): Board => ({
  ...EMPTY_BOARD,
  connection: { kind: 'live' },
  engineSeenMs: NOW,
  ...more,
});
const lost = (seconds: number, inMs: number | null = 2_400): Partial<Board> => ({
  connection: {
    kind: 'lost',
    sinceMs: NOW - seconds * 1_000,
    nextAttemptMs: inMs === null ? null : NOW + inMs,
  },
});

test('age of the data: fresh, ageing, stale, unknown', () => {
  const at = (seconds: number) => freshness(board({ engineSeenMs: NOW - seconds * 1_000 }), NOW);
  expect([at(0), at(4), at(5), at(14), at(15)]).toEqual(['fresh', 'fresh', 'ageing', 'ageing', 'stale']);
  expect(freshness(board({ engineSeenMs: null }), NOW)).toBe('unknown');
});

test('the pill names the worst news', () => {
  const kind = (more: Partial<Board>, onLine = true) => pillOf(board(more), NOW, onLine).kind;
  expect(kind({})).toBe('live');
  expect(kind({ paused: true })).toBe('paused');
  expect(kind({ status: statusOf({ phase: 'catching_up' }), paused: true })).toBe('catching_up');
  expect(kind({ engineSeenMs: NOW - 60_000 })).toBe('silent');
  expect(kind(lost(3))).toBe('reconnecting');
  expect(kind(lost(20))).toBe('offline');
  expect(kind(lost(1), false)).toBe('offline');
});

test('the countdown is in whole seconds, never negative, and none without a network', () => {
  expect(pillOf(board(lost(3)), NOW, true)).toMatchObject({ inSeconds: 3 });
  expect(pillOf(board(lost(3, -5_000)), NOW, true)).toMatchObject({ inSeconds: 0 });
  expect(pillOf(board(lost(3)), NOW, false)).toMatchObject({ inSeconds: null });
});

test('business time is that of the newest epoch, also when a replay goes back in time', () => {
  const view = (epoch: number, as_of_ms: number) => fromSnapshot(snapshotOf('v', [], { epoch, as_of_ms }), 0);
  const at = (statusEpoch: number, statusMs: number, viewEpoch: number, viewMs: number) =>
    businessTimeMs(
      board({
        status: statusOf({ epoch: statusEpoch, as_of_ms: statusMs }),
        views: { v: view(viewEpoch, viewMs) },
      }),
    );
  expect(at(5, 500, 4, 400)).toBe(500);
  expect(at(5, 500, 6, 600)).toBe(600);
  expect(at(8, 100, 6, 600)).toBe(100);
  expect(businessTimeMs(board({}))).toBeNull();
});
