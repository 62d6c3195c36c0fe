/** Takes an access token, when the server asks for one. */
import { KeyRound } from 'lucide-react';
import { useId, useState } from 'react';
import { useBoard, useBoardContext } from '../live/context';
import { useTexts } from '../messages';
import styles from './SignInPanel.module.css';

export function SignInPanel() {
  const { m } = useTexts();
  const { live } = useBoardContext();
  const rejected = useBoard((board) => board.signIn === 'rejected');
  const [token, setToken] = useState('');
  const inputId = useId();
  const errorId = useId();
  return (
    <form
      className={styles.panel}
      onSubmit={(event) => {
        event.preventDefault();
        if (token.trim()) live.signIn(token);
      }}
    >
      <h2 className={styles.title}>
        <KeyRound aria-hidden="true" size={22} />
        {m.signIn}
      </h2>
      <p>{m.signInText}</p>
      <label htmlFor={inputId} className={styles.label}>
        {m.token}
      </label>
      <input
        id={inputId}
        className={styles.input}
        type="password"
        autoComplete="off"
        spellCheck={false}
        value={token}
        onChange={(event) => setToken(event.target.value)}
        aria-invalid={rejected}
        aria-describedby={rejected ? errorId : undefined}
      />
      {rejected && (
        <p id={errorId} className={styles.error} role="alert">
          {m.signInRejected}
        </p>
      )}
      <button type="submit" className={styles.submit}>
        {m.signIn}
      </button>
    </form>
  );
}
