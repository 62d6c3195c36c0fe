/** Well-formed messages for the tests. */
import * as v from 'valibot';
import { type Alert, AlertSchema, type EngineStatus, type Row, type ViewSnapshot } from '../src/wire/schema';

export function alertOf(id: string, more: Partial<Alert> = {}): Alert {
  return v.parse(AlertSchema, {
    alert_id: id,
    rule: 'stock_low',
    state: 'firing',
    severity: 'high',
    owner: 'warehouse',
    title: `alert ${id}`,
    fired_at: '2025-10-14T08:00:00Z',
    ...more,
  });
}

export function snapshotOf(view: string, rows: Row[], more: Partial<ViewSnapshot> = {}): ViewSnapshot {
  return { view, key: [], columns: [], rows, epoch: 1, as_of_ms: 1, empty_inputs: [], ...more };
}

export function statusOf(more: Partial<EngineStatus> = {}): EngineStatus {
  return {
    epoch: 1,
    as_of_ms: Date.parse('2025-10-14T10:15:00Z'),
    written_at_ms: Date.now(),
    event_time_ms: null,
    records_read: 1,
    lag_records: 0,
    dead_letters: 0,
    phase: 'live',
    ...more,
  };
}
