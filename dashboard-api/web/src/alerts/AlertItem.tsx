/** One alert: what, how bad, since when, whose, what it costs; opened, the row behind it. */
import { ChevronDown, UserRound } from 'lucide-react';
import { useBoard } from '../live/context';
import { businessTimeMs } from '../live/freshness';
import { useTexts } from '../messages';
import type { Alert } from '../wire/schema';
import styles from './AlertItem.module.css';
import { impactOf } from './impact';
import { SeverityIcon } from './SeverityIcon';

export function AlertItem({ alert }: { alert: Alert }) {
  const { m, f } = useTexts();
  const resolved = alert.state === 'resolved';
  const impact = impactOf(alert, f);
  return (
    <li
      className={`${styles.item} ${styles[alert.severity]} ${resolved ? styles.resolved : ''}`}
      data-alert={alert.alert_id}
      data-testid={`alert-${alert.state}`}
    >
      <details className={styles.details}>
        <summary className={styles.summary}>
          <span className={styles.icon}>
            <SeverityIcon severity={alert.severity} />
          </span>
          <span className={styles.text}>
            <span className={styles.title}>{alert.title}</span>
            <span className={styles.meta}>
              <span className={styles.severity}>{m.severity[alert.severity]}</span>
              <Age alert={alert} />
              {alert.owner && (
                <span className={styles.owner}>
                  <UserRound aria-hidden="true" size={12} />
                  {alert.owner}
                </span>
              )}
            </span>
          </span>
          {impact !== null && <span className={styles.impact}>{impact.short}</span>}
          <ChevronDown aria-hidden="true" size={18} className={styles.chevron} />
        </summary>
        <AlertFacts alert={alert} />
      </details>
    </li>
  );
}

/** Ages count in business time: the data's clock runs the rule, not the wall. */
function Age({ alert }: { alert: Alert }) {
  const { m, f } = useTexts();
  const nowMs = useBoard(businessTimeMs);
  const firedMs = Date.parse(alert.fired_at);
  const endMs = alert.resolved_at === null ? nowMs : Date.parse(alert.resolved_at);
  if (Number.isNaN(firedMs) || endMs === null) return null;
  const age = f.duration(endMs - firedMs);
  return <span>{alert.resolved_at === null ? m.since(age) : m.resolvedAfter(age)}</span>;
}

function AlertFacts({ alert }: { alert: Alert }) {
  const { m, f } = useTexts();
  const when = (text: string) => (Number.isNaN(Date.parse(text)) ? text : f.dateTime(Date.parse(text)));
  const facts: [string, string][] = [
    [m.rule, alert.rule],
    [m.firedAt, when(alert.fired_at)],
  ];
  if (alert.resolved_at !== null) facts.push([m.resolvedAt, when(alert.resolved_at)]);
  const impact = impactOf(alert, f);
  if (impact !== null) facts.push([m.impact, impact.exact]);
  facts.push([m.priority, f.number(alert.priority, 'quantity')]);
  return (
    <div className={styles.facts}>
      <Facts entries={facts} />
      <h4 className={styles.heading}>{m.values}</h4>
      <Facts
        entries={Object.entries(alert.row ?? alert.key).map(([name, cell]) => [name, f.cell(cell)])}
        code
      />
    </div>
  );
}

function Facts({ entries, code = false }: { entries: readonly [string, string][]; code?: boolean }) {
  return (
    <dl className={styles.list}>
      {entries.map(([name, value]) => (
        <div key={name} className={styles.pair}>
          <dt>{code ? <code>{name}</code> : name}</dt>
          <dd>{value}</dd>
        </div>
      ))}
    </dl>
  );
}
