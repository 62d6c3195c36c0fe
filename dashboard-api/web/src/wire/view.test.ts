import { expect, test } from 'vitest';
import type { Row, ViewChange, ViewSnapshot } from './schema';
import {
  applyChange as applyAt,
  fromSnapshot as fromSnapshotAt,
  SAMPLE_MS,
  SAMPLES_MAX,
  type ViewState,
} from './view';

const fromSnapshot = (snapshot: ViewSnapshot) => fromSnapshotAt(snapshot, 0);
const applyChange = (view: ViewState, change: ViewChange) => applyAt(view, change, 0);

const snapshot = (rows: Row[], key: string[]): ViewSnapshot => ({
  view: 'v',
  key,
  columns: [],
  rows,
  epoch: 1,
  as_of_ms: 1_000,
  empty_inputs: [],
});

test('an epoch inserts, updates and deletes by key, and counts as one change', () => {
  const before = fromSnapshot(
    snapshot(
      [
        { day: 'a', n: 1 },
        { day: 'b', n: 2 },
      ],
      ['day'],
    ),
  );
  const after = applyChange(before, {
    epoch: 2,
    as_of_ms: 2_000,
    changes: [
      { key: { day: 'a' }, row: null },
      { key: { day: 'b' }, row: { day: 'b', n: 3 } },
      { key: { day: 'c' }, row: { day: 'c', n: 4 } },
    ],
  });
  expect([...after.rows.values()]).toEqual([
    { day: 'b', n: 3 },
    { day: 'c', n: 4 },
  ]);
  expect([...before.rows.values()]).toEqual([
    { day: 'a', n: 1 },
    { day: 'b', n: 2 },
  ]);
  expect(after).toMatchObject({ epoch: 2, asOfMs: 2_000, changes: 1 });
});

test('applying an epoch again changes no row', () => {
  const change = { epoch: 2, as_of_ms: 2, changes: [{ key: { day: 'a' }, row: { day: 'a', n: 9 } }] };
  const once = applyChange(fromSnapshot(snapshot([], ['day'])), change);
  expect(applyChange(once, change).rows).toEqual(once.rows);
});

test('a one-row view whose every column is its key keeps its row when old and new come in any order', () => {
  const old = { n: 1 };
  const next = { n: 2 };
  const before = fromSnapshot(snapshot([old], ['n']));
  const changes = [
    { key: { n: 2 }, row: next },
    { key: { n: 1 }, row: null },
  ];
  for (const order of [changes, [...changes].reverse()]) {
    const after = applyChange(before, { epoch: 2, as_of_ms: 2, changes: order });
    expect([...after.rows.values()]).toEqual([next]);
  }
});

test('the course of a one-row view is bounded and outlives a new snapshot', () => {
  let view = fromSnapshot(snapshot([{ n: 0 }], []));
  const last = 2 * SAMPLES_MAX;
  for (let n = 1; n <= last; n += 1) {
    view = applyAt(view, { epoch: n, as_of_ms: n, changes: [{ key: {}, row: { n } }] }, n * SAMPLE_MS);
  }
  expect(view.samples).toHaveLength(SAMPLES_MAX);
  const again = fromSnapshotAt(snapshot([{ n: -1 }], []), (last + 1) * SAMPLE_MS, view);
  expect(again.samples).toHaveLength(SAMPLES_MAX);
  expect(again.samples.slice(-2).map((sample) => sample.row.n)).toEqual([last, -1]);
});

test('changes within a second share a sample, which holds the newest', () => {
  let view = fromSnapshot(snapshot([{ n: 0 }], []));
  for (const [n, atMs] of [
    [1, 400],
    [2, 999],
    [3, 1_000],
    [4, 1_900],
    [5, 2_000],
  ] as const) {
    view = applyAt(view, { epoch: n, as_of_ms: n, changes: [{ key: {}, row: { n } }] }, atMs);
  }
  expect(view.samples.map((sample) => [sample.atMs, sample.row.n])).toEqual([
    [0, 2],
    [1_000, 4],
    [2_000, 5],
  ]);
});
