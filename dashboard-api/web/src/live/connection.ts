/**
 * The live connection: the official Centrifuge client, one subscription per view, alerts and status.
 *
 * In: the server's frames. Out: calls on the `BoardStore`. A subscription starts with a snapshot in the reply;
 * after a cut the client recovers what it missed by offset, or the server sends a new snapshot. The connection
 * is tried again for as long as the page is open; a refused token leads to the sign-in panel.
 */
import { Centrifuge, type Subscription, UnauthorizedError } from 'centrifuge';
import * as v from 'valibot';
import {
  AlertEventSchema,
  AlertSnapshotSchema,
  EngineStatusSchema,
  ViewChangeSchema,
  ViewSnapshotSchema,
} from '../wire/schema';
import { fetchSession, keepToken, keptToken, NotSignedIn, type SessionAnswer } from './session';
import type { BoardStore } from './store';

/** Pause before the next attempt; drawn once per page from this range, so that many boards do not come at once. */
const RETRY_MIN_MS = 2_000;
const RETRY_MAX_MS = 5_000;
/** Pause before a channel that does not exist (yet) is asked for again. */
const UNKNOWN_CHANNEL_RETRY_MS = 5_000;

const DISCONNECT_CALLED = 0;
const DISCONNECT_UNAUTHORIZED = 1;
const CLOSE_INVALID_TOKEN = 3500;
const UNSUBSCRIBE_CALLED = 0;
const ERROR_PERMISSION_DENIED = 103;

export interface LiveOptions {
  readonly store: BoardStore;
  /** Origin of the server without a slash at the end. */
  readonly base: string;
  readonly views: readonly string[];
  /** Only for tests outside a browser. */
  readonly websocket?: unknown;
  readonly retryMs?: number;
}

export interface Live {
  /** Tries at once instead of after the pause. */
  retryNow(): void;
  /** Takes the token a person typed in. */
  signIn(token: string): void;
  stop(): void;
}

export function startLive(options: LiveOptions): Live {
  return new LiveConnection(options);
}

class LiveConnection implements Live {
  readonly #store: BoardStore;
  readonly #options: LiveOptions;
  readonly #retryMs: number;
  readonly #timers = new Set<ReturnType<typeof setTimeout>>();
  #client: Centrifuge | null = null;
  #clockOffsetMs = 0;
  #lostSinceMs: number | null = null;
  #stopped = false;
  #opening = false;

  constructor(options: LiveOptions) {
    this.#options = options;
    this.#store = options.store;
    this.#retryMs = options.retryMs ?? RETRY_MIN_MS + Math.random() * (RETRY_MAX_MS - RETRY_MIN_MS);
    void this.#open();
  }

  retryNow(): void {
    if (this.#client?.state === 'connected') return;
    this.#clearTimers();
    this.#client?.disconnect();
    void this.#open();
  }

  signIn(token: string): void {
    keepToken(token);
    this.retryNow();
  }

  stop(): void {
    this.#stopped = true;
    this.#clearTimers();
    this.#client?.disconnect();
    this.#client = null;
  }

  /** Asks for a session, then connects; comes back after a pause if the server does not answer. */
  async #open(): Promise<void> {
    if (this.#opening || this.#stopped) return;
    this.#opening = true;
    try {
      const answer = await this.#session();
      if (this.#stopped) return;
      if (this.#client) {
        this.#client.setToken(answer.session.token ?? '');
        this.#client.connect();
      } else {
        this.#client = this.#newClient(answer);
        this.#client.connect();
      }
    } catch (error) {
      if (error instanceof NotSignedIn) this.#refused('sign-in');
      else this.#lostUntilRetry();
    } finally {
      this.#opening = false;
    }
  }

  /** A token that is refused is forgotten, and the server asked once more: it may serve anybody. */
  async #session(): Promise<SessionAnswer> {
    const brought = keptToken() !== null;
    try {
      return await this.#askSession();
    } catch (error) {
      if (!(error instanceof NotSignedIn)) throw error;
      keepToken(null);
      try {
        if (brought) return await this.#askSession();
      } catch (again) {
        if (!(again instanceof NotSignedIn)) throw again;
      }
      this.#store.setSignIn(brought ? 'rejected' : 'needed');
      throw error;
    }
  }

  async #askSession(): Promise<SessionAnswer> {
    const answer = await fetchSession(this.#options.base);
    this.#clockOffsetMs = answer.clockOffsetMs;
    this.#store.setSession(answer.session);
    return answer;
  }

  #newClient(answer: SessionAnswer): Centrifuge {
    const url = `${this.#options.base.replace(/^http/, 'ws')}/connection/websocket`;
    const client = new Centrifuge(url, {
      name: 'andon-board',
      websocket: this.#options.websocket ?? null,
      // Equal bounds take the client's own jitter out, so that the page can count down to the next attempt.
      minReconnectDelay: this.#retryMs,
      maxReconnectDelay: this.#retryMs,
      token: answer.session.token ?? '',
      getToken: answer.session.token === null ? null : () => this.#freshToken(),
    });
    client.on('connected', () => {
      this.#lostSinceMs = null;
      this.#store.setConnection({ kind: 'live' });
    });
    client.on('connecting', (context) => {
      if (context.code !== 0) this.#lost();
    });
    client.on('error', () => {
      if (client.state !== 'connected') this.#lost();
    });
    client.on('disconnected', (context) => this.#disconnected(context.code, context.reason));
    for (const name of this.#options.views) this.#followView(client, name);
    this.#followAlerts(client);
    this.#followStatus(client);
    return client;
  }

  async #freshToken(): Promise<string> {
    try {
      return (await this.#session()).session.token ?? '';
    } catch (error) {
      if (error instanceof NotSignedIn) throw new UnauthorizedError('not signed in');
      throw error;
    }
  }

  /** The server said that trying again is no use, or we said stop. */
  #disconnected(code: number, reason: string): void {
    if (code === DISCONNECT_CALLED || this.#stopped) return;
    if (code === DISCONNECT_UNAUTHORIZED) {
      this.#refused(reason);
      return;
    }
    if (code === CLOSE_INVALID_TOKEN && keptToken()) {
      keepToken(null);
      this.#store.setSignIn('rejected');
      this.#refused(reason);
      return;
    }
    // For example a viewer token of a demo that was started anew: ask for a new session.
    this.#lostUntilRetry();
  }

  #refused(reason: string): void {
    this.#store.setConnection({ kind: 'refused', sinceMs: this.#since(), reason });
  }

  #since(): number {
    this.#lostSinceMs ??= Date.now();
    return this.#lostSinceMs;
  }

  #lost(): void {
    const nextAttemptMs = Date.now() + this.#retryMs;
    this.#store.setConnection({ kind: 'lost', sinceMs: this.#since(), nextAttemptMs });
  }

  #lostUntilRetry(): void {
    this.#lost();
    this.#later(this.#retryMs, () => void this.#open());
  }

  #later(delayMs: number, action: () => void): void {
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      if (!this.#stopped) action();
    }, delayMs);
    this.#timers.add(timer);
  }

  #clearTimers(): void {
    for (const timer of this.#timers) clearTimeout(timer);
    this.#timers.clear();
  }

  #followView(client: Centrifuge, name: string): void {
    const subscription = client.newSubscription(`view:${name}`, { positioned: true, recoverable: true });
    this.#follow(subscription, {
      snapshot: (data) => this.#store.viewSnapshot(v.parse(ViewSnapshotSchema, data)),
      publication: (data) => this.#store.viewChange(name, v.parse(ViewChangeSchema, data)),
      absent: (reason) => this.#store.viewAbsent(name, reason),
    });
  }

  #followAlerts(client: Centrifuge): void {
    const subscription = client.newSubscription('alerts', { positioned: true, recoverable: true });
    this.#follow(subscription, {
      snapshot: (data) => this.#store.alertSnapshot(v.parse(AlertSnapshotSchema, data).alerts),
      publication: (data) => this.#store.alertEvent(v.parse(AlertEventSchema, data).data),
      absent: (reason) => this.#store.viewAbsent('alerts', reason),
    });
  }

  #followStatus(client: Centrifuge): void {
    const status = (data: unknown) => {
      if (data === null || data === undefined) return;
      const parsed = v.parse(EngineStatusSchema, data);
      this.#store.engineStatus(parsed, Date.now() + this.#clockOffsetMs - parsed.written_at_ms);
    };
    this.#follow(client.newSubscription('status'), {
      snapshot: status,
      publication: status,
      absent: (reason) => this.#store.viewAbsent('status', reason),
    });
  }

  #follow(subscription: Subscription, channel: Channel): void {
    // One unreadable message must not silence the channel, nor may it pass unseen.
    const guarded = (read: (data: unknown) => void, data: unknown) => {
      try {
        read(data);
      } catch (error) {
        console.error(`${subscription.channel}: message not understood`, error);
        channel.absent('unreadable');
      }
    };
    subscription.on('subscribed', (context) => {
      if (!context.recovered) guarded(channel.snapshot, context.data);
    });
    subscription.on('publication', (context) => guarded(channel.publication, context.data));
    subscription.on('unsubscribed', (context) => {
      if (context.code === UNSUBSCRIBE_CALLED || this.#stopped) return;
      channel.absent(context.code === ERROR_PERMISSION_DENIED ? 'forbidden' : 'unknown');
      this.#later(UNKNOWN_CHANNEL_RETRY_MS, () => subscription.subscribe());
    });
    subscription.subscribe();
  }
}

interface Channel {
  snapshot(data: unknown): void;
  publication(data: unknown): void;
  absent(reason: 'unknown' | 'forbidden' | 'unreadable'): void;
}
