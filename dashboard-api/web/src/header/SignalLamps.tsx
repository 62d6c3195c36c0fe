/** The board's signal lamps: one for each severity, lit while something of it fires, with the count inside. */
import { SeverityIcon } from '../alerts/SeverityIcon';
import { useBoard } from '../live/context';
import { useTexts } from '../messages';
import { countBySeverity } from '../wire/alerts';
import styles from './SignalLamps.module.css';

const LAMPS = ['critical', 'high', 'warning'] as const;

export function SignalLamps() {
  const { m, f } = useTexts();
  const firing = useBoard((board) => board.alerts.firing);
  const counts = countBySeverity(firing);
  return (
    <ul className={styles.lamps} aria-label={m.lamps}>
      {LAMPS.map((severity) => (
        <li key={severity} className={`${styles.lamp} ${counts[severity] > 0 ? styles[severity] : ''}`}>
          <SeverityIcon severity={severity} size={16} />
          <strong className={styles.count}>{f.number(counts[severity], 'count')}</strong>
          <span className={styles.label}>{m.severity[severity]}</span>
        </li>
      ))}
    </ul>
  );
}
