/**
 * Lines that a person types, or that a pipe brings.
 *
 * @module
 */
import { createInterface, type Interface } from 'node:readline';

/**
 * Reads stdin line by line, also lines typed ahead. Between terminals it shows a prompt, edits and recalls lines;
 * otherwise it shows nothing. Ctrl-C, or SIGINT, calls `onInterrupt` instead of ending the program.
 */
export class LineReader {
  private readonly readline: Interface;
  private readonly lines: string[] = [];
  private waiting: ((line: string | null) => void) | null = null;
  private ended = false;

  constructor(private readonly onInterrupt: () => void) {
    const terminal = process.stdin.isTTY && process.stdout.isTTY;
    this.readline = createInterface({
      input: process.stdin,
      ...(terminal && { output: process.stdout }),
      terminal,
      prompt: '> ',
    });
    this.readline.on('line', this.take).on('close', this.end);
    // A terminal in raw mode gives Ctrl-C as a key, anything else as a signal.
    this.readline.on('SIGINT', onInterrupt);
    process.on('SIGINT', onInterrupt);
  }

  /** The next line, or null after the last one, after Ctrl-D or `close()`. One caller at a time. */
  async next(): Promise<string | null> {
    const line = this.lines.shift();
    if (line !== undefined || this.ended) return line ?? null;
    this.readline.prompt(true);
    return new Promise((resolve) => (this.waiting = resolve));
  }

  /** Shows the prompt again, after something else was written. */
  prompt(): void {
    if (this.waiting) this.readline.prompt(true);
  }

  /** Stops reading; Ctrl-C ends the program again. Idempotent. */
  close(): void {
    process.off('SIGINT', this.onInterrupt);
    this.readline.close();
  }

  private readonly take = (line: string): void => {
    if (this.waiting) this.settle(line);
    else this.lines.push(line);
  };

  private readonly end = (): void => {
    this.ended = true;
    this.settle(null);
  };

  private settle(line: string | null): void {
    const resolve = this.waiting;
    this.waiting = null;
    resolve?.(line);
  }
}
