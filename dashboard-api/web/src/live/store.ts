/**
 * The board's one store: all that came from the server, replaced as a whole and shown at most four times a second.
 *
 * In: snapshots, changes and connection states. Out: an immutable `Board` through `get` and `subscribe`, made
 * for `useSyncExternalStore`. A value that did not change keeps its identity, so a widget renders only when
 * its own data moved. While paused, the data shown stays what it was and the newest is kept behind it.
 */
import { type AlertBook, applyAlert, fromAlerts, NO_ALERTS } from '../wire/alerts';
import type { Alert, EngineStatus, Session, ViewChange, ViewSnapshot } from '../wire/schema';
import { applyChange, fromSnapshot, type ViewState } from '../wire/view';

/** How the page stands with the server. Times are wall clock, milliseconds since 1970. */
export type Connection =
  | { readonly kind: 'connecting' }
  | { readonly kind: 'live' }
  | { readonly kind: 'lost'; readonly sinceMs: number; readonly nextAttemptMs: number | null }
  | { readonly kind: 'refused'; readonly sinceMs: number; readonly reason: string };

export type SignIn = 'not_needed' | 'needed' | 'rejected';

/** A channel that has nothing to show yet, and why. */
export type Absence = 'loading' | 'unknown' | 'forbidden' | 'unreadable';

export interface Board {
  readonly connection: Connection;
  readonly signIn: SignIn;
  readonly session: Session | null;
  readonly views: Readonly<Record<string, ViewState>>;
  /** Why a view is not in `views`, or could not be read last time. */
  readonly absent: Readonly<Record<string, Absence>>;
  readonly alerts: AlertBook;
  readonly alertsLoaded: boolean;
  readonly status: EngineStatus | null;
  /** Wall clock at which the engine was last known to be alive, by this machine's clock. */
  readonly engineSeenMs: number | null;
  /** Wall clock of the last message of any kind. */
  readonly lastMessageMs: number | null;
  /** Alerts that began to fire while the page was open, the newest last; for announcements. */
  readonly arrivals: readonly Alert[];
  readonly paused: boolean;
  /** Epochs that arrived while paused. */
  readonly waiting: number;
}

/** Arrivals kept for announcing; older ones have been read out. */
const ARRIVALS_MAX = 20;

export const EMPTY_BOARD: Board = {
  connection: { kind: 'connecting' },
  signIn: 'not_needed',
  session: null,
  views: {},
  absent: {},
  alerts: NO_ALERTS,
  alertsLoaded: false,
  status: null,
  engineSeenMs: null,
  lastMessageMs: null,
  arrivals: [],
  paused: false,
  waiting: 0,
};

/** The page shows at most four states a second: faster changes cannot be read, and must not flicker. */
const SHOWN_EVERY_MS = 250;

/**
 * Calls back before the next frame, but not sooner than `SHOWN_EVERY_MS` after the time before; on a hidden page,
 * where no frames come, soon.
 */
export function pacedFrames(): (callback: () => void) => void {
  let shownMs = Number.NEGATIVE_INFINITY;
  return (callback) => {
    const show = () => {
      shownMs = performance.now();
      callback();
    };
    const frame = () => {
      if (typeof document === 'undefined' || document.hidden) setTimeout(show, 50);
      else requestAnimationFrame(show);
    };
    const waitMs = shownMs + SHOWN_EVERY_MS - performance.now();
    if (waitMs > 0) setTimeout(frame, waitMs);
    else frame();
  };
}

export class BoardStore {
  #latest: Board = EMPTY_BOARD;
  #shown: Board = EMPTY_BOARD;
  #frozen: Board | null = null;
  #waiting = 0;
  #scheduled = false;
  readonly #listeners = new Set<() => void>();
  readonly #schedule: (callback: () => void) => void;
  readonly #now: () => number;

  constructor(schedule = pacedFrames(), now: () => number = Date.now) {
    this.#schedule = schedule;
    this.#now = now;
  }

  readonly get = (): Board => this.#shown;

  readonly subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  };

  setConnection(connection: Connection): void {
    this.#update({ connection });
  }

  setSession(session: Session): void {
    this.#update({ session, signIn: 'not_needed' });
  }

  setSignIn(signIn: SignIn): void {
    this.#update({ signIn });
  }

  viewSnapshot(snapshot: ViewSnapshot): void {
    const view = fromSnapshot(snapshot, this.#now(), this.#latest.views[snapshot.view]);
    const { [snapshot.view]: _gone, ...absent } = this.#latest.absent;
    this.#data({ views: { ...this.#latest.views, [snapshot.view]: view }, absent });
  }

  viewChange(name: string, change: ViewChange): void {
    const before = this.#latest.views[name];
    if (!before) return;
    this.#data({ views: { ...this.#latest.views, [name]: applyChange(before, change, this.#now()) } });
  }

  viewAbsent(name: string, absence: Absence): void {
    this.#update({ absent: { ...this.#latest.absent, [name]: absence } });
  }

  alertSnapshot(alerts: readonly Alert[]): void {
    const known = new Set(this.#latest.alerts.firing.map((alert) => alert.alert_id));
    const next = fromAlerts(alerts);
    const arrived = this.#latest.alertsLoaded
      ? next.firing.filter((alert) => !known.has(alert.alert_id)).reverse()
      : [];
    this.#data({ alerts: next, alertsLoaded: true, arrivals: this.#arrived(arrived) });
  }

  alertEvent(alert: Alert): void {
    const known = this.#latest.alerts.firing.some((other) => other.alert_id === alert.alert_id);
    const arrived = alert.state === 'firing' && !known ? [alert] : [];
    this.#data({ alerts: applyAlert(this.#latest.alerts, alert), arrivals: this.#arrived(arrived) });
  }

  /** @param ageMs how long ago the engine wrote this, by the server's clock. */
  engineStatus(status: EngineStatus, ageMs: number): void {
    this.#update({
      status,
      engineSeenMs: this.#now() - Math.max(0, ageMs),
      lastMessageMs: this.#now(),
    });
  }

  pause(): void {
    if (this.#frozen) return;
    this.#frozen = this.#shown;
    this.#waiting = 0;
    this.#update({});
  }

  resume(): void {
    this.#frozen = null;
    this.#waiting = 0;
    this.#update({});
  }

  #arrived(alerts: readonly Alert[]): readonly Alert[] {
    return alerts.length === 0
      ? this.#latest.arrivals
      : [...this.#latest.arrivals, ...alerts].slice(-ARRIVALS_MAX);
  }

  #data(change: Partial<Board>): void {
    if (this.#frozen) this.#waiting += 1;
    this.#update({ ...change, lastMessageMs: this.#now() });
  }

  #update(change: Partial<Board>): void {
    this.#latest = { ...this.#latest, ...change };
    if (this.#scheduled) return;
    this.#scheduled = true;
    this.#schedule(() => this.#flush());
  }

  #flush(): void {
    this.#scheduled = false;
    const frozen = this.#frozen;
    this.#shown = frozen
      ? {
          ...this.#latest,
          views: frozen.views,
          alerts: frozen.alerts,
          arrivals: frozen.arrivals,
          status: frozen.status,
          paused: true,
          waiting: this.#waiting,
        }
      : { ...this.#latest, paused: false, waiting: 0 };
    for (const listener of this.#listeners) listener();
  }
}
