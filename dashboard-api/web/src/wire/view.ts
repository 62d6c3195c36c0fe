/**
 * A kept view as the board holds it: snapshot in, epochs applied, a new immutable value out.
 *
 * Applying the same epoch twice gives the same rows, because a change carries the whole row under its key.
 */
import type { Column, Row, ViewChange, ViewSnapshot } from './schema';

/** Values kept per one-row view for its sparkline; the oldest leave first. */
export const SAMPLES_MAX = 60;
/** Changes closer together than this share one sample: the newest. */
export const SAMPLE_MS = 1_000;

export interface ViewState {
  readonly name: string;
  readonly key: readonly string[];
  readonly columns: readonly Column[];
  /** Rows by the JSON of their key columns. */
  readonly rows: ReadonlyMap<string, Row>;
  readonly epoch: number;
  /** Business time of the last change, milliseconds since 1970. */
  readonly asOfMs: number | null;
  readonly emptyInputs: readonly string[];
  /** How often the rows changed since the page was opened. */
  readonly changes: number;
  /** The row of a one-row view as it was after its last changes, oldest first. */
  readonly samples: readonly Sample[];
}

export interface Sample {
  /** Wall clock of the change that began this sample, milliseconds since 1970. */
  readonly atMs: number;
  readonly row: Row;
}

/** Identity of a row: its key columns in the order of the view's key. */
export function keyOf(key: readonly string[], row: Row): string {
  return JSON.stringify(key.map((column) => row[column] ?? null));
}

function sampled(
  samples: readonly Sample[],
  rows: ReadonlyMap<string, Row>,
  nowMs: number,
): readonly Sample[] {
  const row = rows.size === 1 ? firstRow(rows) : null;
  if (!row) return samples;
  const last = samples.at(-1);
  const shared = last !== undefined && nowMs - last.atMs < SAMPLE_MS;
  if (shared) return [...samples.slice(0, -1), { atMs: last.atMs, row }];
  return [...samples.slice(1 - SAMPLES_MAX), { atMs: nowMs, row }];
}

/** The only row of a one-row view, or the first one. */
export function firstRow(rows: ReadonlyMap<string, Row>): Row | null {
  return rows.values().next().value ?? null;
}

/** A view as the subscribe reply gave it; `previous` keeps the samples over a lost connection. */
export function fromSnapshot(snapshot: ViewSnapshot, nowMs: number, previous?: ViewState): ViewState {
  const rows = new Map(snapshot.rows.map((row) => [keyOf(snapshot.key, row), row]));
  return {
    name: snapshot.view,
    key: snapshot.key,
    columns: snapshot.columns,
    rows,
    epoch: snapshot.epoch,
    asOfMs: snapshot.as_of_ms,
    emptyInputs: snapshot.empty_inputs,
    changes: previous ? previous.changes + 1 : 0,
    samples: sampled(previous?.samples ?? [], rows, nowMs),
  };
}

/** The view after one more epoch. Deletes go first: a row that only moved to another key must not vanish. */
export function applyChange(view: ViewState, change: ViewChange, nowMs: number): ViewState {
  const rows = new Map(view.rows);
  for (const { key, row } of change.changes) {
    if (row === null) rows.delete(keyOf(view.key, key));
  }
  for (const { row } of change.changes) {
    if (row !== null) rows.set(keyOf(view.key, row), row);
  }
  return {
    ...view,
    rows,
    epoch: change.epoch,
    asOfMs: change.as_of_ms ?? view.asOfMs,
    changes: view.changes + 1,
    samples: sampled(view.samples, rows, nowMs),
  };
}
