/** The alerts: firing ones by priority, then the resolved ones, dimmed. */
import { BellOff, ShieldCheck } from 'lucide-react';
import { useState } from 'react';
import { useBoard } from '../live/context';
import { useTexts } from '../messages';
import { StaleBadge } from '../parts/StaleBadge';
import { AlertItem } from './AlertItem';
import styles from './AlertList.module.css';

/** Shown at first on a narrow screen, where the key figures wait below. */
const FIRST_ON_PHONE = 3;
/** Drawn at most; more than this is no list that a person reads. */
const DRAWN_MAX = 200;

export function AlertList({ narrow }: { narrow: boolean }) {
  const { m, f } = useTexts();
  const { firing, resolved } = useBoard((board) => board.alerts);
  const loaded = useBoard((board) => board.alertsLoaded);
  const absent = useBoard((board) => board.absent.alerts);
  const [all, setAll] = useState(false);
  const folded = narrow && !all && firing.length > FIRST_ON_PHONE;
  const shown = firing.slice(0, folded ? FIRST_ON_PHONE : DRAWN_MAX);

  return (
    <section className={styles.panel} aria-labelledby="alerts-title" id="alerts" tabIndex={-1}>
      <div className={styles.head}>
        <h2 id="alerts-title" className={styles.title}>
          {m.alerts}
        </h2>
        {loaded && <span className={styles.count}>{m.firingCount(firing.length)}</span>}
        <StaleBadge />
      </div>
      <div className={styles.scroll}>
        {!loaded ? (
          <p className={styles.notice}>
            {absent === 'forbidden'
              ? m.forbiddenView
              : absent === 'unreadable'
                ? m.unreadableView
                : m.loading}
          </p>
        ) : firing.length === 0 ? (
          <div className={styles.quiet}>
            <ShieldCheck aria-hidden="true" size={40} />
            <strong>{m.allQuiet}</strong>
            <p>{m.allQuietText}</p>
          </div>
        ) : (
          <ul className={styles.list}>
            {shown.map((alert) => (
              <AlertItem key={alert.alert_id} alert={alert} />
            ))}
          </ul>
        )}
        {narrow && firing.length > FIRST_ON_PHONE && (
          <button type="button" className={styles.more} onClick={() => setAll(!all)}>
            {folded ? m.showAll(f.number(firing.length, 'count')) : m.showFewer}
          </button>
        )}
        {resolved.length > 0 && (
          <details className={styles.resolved} open={!narrow && firing.length < FIRST_ON_PHONE}>
            <summary>
              <BellOff aria-hidden="true" size={16} />
              {m.resolved(f.number(resolved.length, 'count'))}
            </summary>
            <ul className={styles.list}>
              {resolved.map((alert) => (
                <AlertItem key={alert.alert_id} alert={alert} />
              ))}
            </ul>
          </details>
        )}
      </div>
    </section>
  );
}
