/** The alert list: firing ones by priority, and the last resolved ones. */
import { type Alert, SEVERITIES, type Severity } from './schema';

/** Resolved alerts kept on the page; the oldest leave first. */
export const RESOLVED_MAX = 50;

export interface AlertBook {
  /** Firing, highest priority first. */
  readonly firing: readonly Alert[];
  /** Resolved, the newest first. */
  readonly resolved: readonly Alert[];
}

export const NO_ALERTS: AlertBook = { firing: [], resolved: [] };

function byPriority(a: Alert, b: Alert): number {
  return (
    b.priority - a.priority ||
    SEVERITIES.indexOf(a.severity) - SEVERITIES.indexOf(b.severity) ||
    b.fired_at.localeCompare(a.fired_at) ||
    a.alert_id.localeCompare(b.alert_id)
  );
}

function byResolution(a: Alert, b: Alert): number {
  return (b.resolved_at ?? '').localeCompare(a.resolved_at ?? '') || a.alert_id.localeCompare(b.alert_id);
}

function book(alerts: Iterable<Alert>): AlertBook {
  const all = [...alerts];
  return {
    firing: all.filter((alert) => alert.state === 'firing').sort(byPriority),
    resolved: all
      .filter((alert) => alert.state === 'resolved')
      .sort(byResolution)
      .slice(0, RESOLVED_MAX),
  };
}

export function fromAlerts(alerts: readonly Alert[]): AlertBook {
  return book(new Map(alerts.map((alert) => [alert.alert_id, alert])).values());
}

/** The book after one more event; the last word on an alert counts. */
export function applyAlert(before: AlertBook, alert: Alert): AlertBook {
  const rest = [...before.firing, ...before.resolved].filter((other) => other.alert_id !== alert.alert_id);
  return book([...rest, alert]);
}

export function countBySeverity(alerts: readonly Alert[]): Record<Severity, number> {
  const counts: Record<Severity, number> = { critical: 0, high: 0, warning: 0, info: 0 };
  for (const alert of alerts) counts[alert.severity] += 1;
  return counts;
}
