import { ProgressLine } from '../../lib/cli/progress';

/** What a display writes while loading gets as far as each of `fractions`. */
function display(isTTY: boolean, fractions: number[]): string[] {
  const written: string[] = [];
  const terminal = { isTTY, write: (text: unknown) => written.push(String(text)) > 0 };
  const progress = new ProgressLine('loading a-model', terminal);
  fractions.forEach(progress.update);
  progress.done();
  progress.done();
  return written;
}

describe('progress', () => {
  it('is one line of a terminal, written once a percent and wiped at the end', () => {
    expect(display(true, [0, 0.5, 0.501, 1])).toEqual([
      '\r\x1b[2Kheddle: loading a-model 0 %',
      '\r\x1b[2Kheddle: loading a-model 50 %',
      '\r\x1b[2Kheddle: loading a-model 100 %',
      '\r\x1b[2K',
    ]);
  });

  it('leaves no trace when nothing was shown', () => expect(display(true, [])).toEqual([]));

  it('is not written to anything else', () => expect(display(false, [0, 1])).toEqual([]));
});
