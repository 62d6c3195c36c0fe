/**
 * What the server sends, checked once at the edge.
 *
 * In: JSON of the session endpoint, of subscribe replies and of publications. Out: typed values.
 * Unknown fields are dropped, so that a newer server does not break an open board. Decimals stay strings: a
 * number would lose digits.
 */
import * as v from 'valibot';

/** A value of a view's cell: decimals and times are strings, NULL is null. */
const Cell = v.union([
  v.string(),
  v.number(),
  v.boolean(),
  v.null(),
  v.array(v.unknown()),
  v.looseObject({}),
]);
export const RowSchema = v.record(v.string(), Cell);
export type Cell = v.InferOutput<typeof Cell>;
export type Row = v.InferOutput<typeof RowSchema>;

const Column = v.object({ name: v.string(), type: v.string(), nullable: v.boolean() });
export type Column = v.InferOutput<typeof Column>;

/** `GET /api/v1/session`. */
export const SessionSchema = v.object({
  token: v.nullish(v.string(), null),
  user: v.nullish(v.string(), null),
  mode: v.picklist(['demo', 'anonymous', 'token']),
});
export type Session = v.InferOutput<typeof SessionSchema>;

/** `POST /api/v1/auth/login` and `/refresh`. */
export const TokensSchema = v.object({ access_token: v.string() });

/** The subscribe reply of a channel `view:<name>`. */
export const ViewSnapshotSchema = v.object({
  view: v.string(),
  key: v.array(v.string()),
  columns: v.array(Column),
  rows: v.array(RowSchema),
  epoch: v.nullish(v.number(), 0),
  as_of_ms: v.nullish(v.number(), null),
  empty_inputs: v.optional(v.array(v.string()), []),
});
export type ViewSnapshot = v.InferOutput<typeof ViewSnapshotSchema>;

/** One epoch of a view: its net changes. */
export const ViewChangeSchema = v.object({
  epoch: v.nullish(v.number(), 0),
  as_of_ms: v.nullish(v.number(), null),
  changes: v.array(v.object({ key: RowSchema, row: v.nullable(RowSchema) })),
});
export type ViewChange = v.InferOutput<typeof ViewChangeSchema>;

/** What the engine says of itself about once a second. */
export const EngineStatusSchema = v.object({
  epoch: v.number(),
  as_of_ms: v.number(),
  written_at_ms: v.number(),
  event_time_ms: v.nullish(v.number(), null),
  records_read: v.optional(v.number(), 0),
  lag_records: v.nullish(v.number(), null),
  dead_letters: v.optional(v.number(), 0),
  phase: v.string(),
});
export type EngineStatus = v.InferOutput<typeof EngineStatusSchema>;

export const SEVERITIES = ['critical', 'high', 'warning', 'info'] as const;
export type Severity = (typeof SEVERITIES)[number];

/** The `data` of an alert event, also an element of the alert channel's snapshot. */
export const AlertSchema = v.object({
  alert_id: v.string(),
  rule: v.string(),
  state: v.picklist(['firing', 'resolved']),
  severity: v.fallback(v.picklist(SEVERITIES), 'warning'),
  owner: v.nullish(v.string(), null),
  title: v.string(),
  key: v.optional(RowSchema, {}),
  row: v.nullish(RowSchema, null),
  impact: v.nullish(v.union([v.string(), v.pipe(v.number(), v.transform(String))]), null),
  priority: v.optional(v.number(), 0),
  fired_at: v.string(),
  resolved_at: v.nullish(v.string(), null),
});
export type Alert = v.InferOutput<typeof AlertSchema>;

export const AlertSnapshotSchema = v.object({ alerts: v.array(AlertSchema) });
/** A CloudEvent on the channel `alerts`; only its data matters here. */
export const AlertEventSchema = v.object({ type: v.string(), data: AlertSchema });

/** An entry of `GET /api/v1/views`, as far as "why this number" shows it. */
export const ViewInfoSchema = v.object({
  name: v.string(),
  columns: v.array(Column),
  key: v.optional(v.array(v.string()), []),
  description: v.nullish(v.string(), null),
  sql: v.string(),
  empty_inputs: v.optional(v.array(v.string()), []),
  maintenance: v.optional(v.string(), ''),
});
export type ViewInfo = v.InferOutput<typeof ViewInfoSchema>;
export const ViewListSchema = v.union([
  v.array(ViewInfoSchema),
  v.pipe(
    v.object({ views: v.array(ViewInfoSchema) }),
    v.transform((body) => body.views),
  ),
]);
