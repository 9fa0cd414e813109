/** Tokenizers too large to be read on the JavaScript thread. The thread needs the built package, so children run it. */
import { runScript } from '../helpers/script';

/** `tokenizer(n)` is the bundled one with as many tokens, `load` the loader, `longestGap` what a promise costs the event loop. */
const prelude = `
  const { readFileSync } = require('node:fs');
  const { Tokenizer } = require('./dist/tokenizer/tokenizer.js');
  const bundled = readFileSync(alone.model + '/tokenizer.json', 'utf8');
  const tokenizer = (n, change = () => {}) => {
    const json = JSON.parse(bundled);
    const { vocab, merges } = json.model;
    const parts = Object.keys(vocab).filter((token) => /^[a-z]+$/.test(token));
    let size = Object.keys(vocab).length;
    for (const a of parts) for (const b of parts) {
      if (size >= n) break;
      if (a + b in vocab) continue;
      vocab[a + b] = size++;
      merges.push([a, b]);
    }
    change(json);
    return JSON.stringify(json, null, 2);
  };
  const longestGap = async (promise) => {
    let [last, longest] = [performance.now(), 0];
    const timer = setInterval(() => { const now = performance.now(); longest = Math.max(longest, now - last); last = now; }, 1);
    await promise;
    longest = Math.max(longest, performance.now() - last);
    clearInterval(timer);
    return longest;
  };
`;

it('is read beside the JavaScript thread, but for one part', async () => {
  const { code, stdout, stderr } = await runScript(`${prelude}
    const text = tokenizer(150000);
    await Tokenizer.load(bundled);
    const begun = performance.now();
    const gap = await longestGap(Tokenizer.load(text));
    console.log(gap / (performance.now() - begun));`);
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  expect(Number(stdout)).toBeLessThan(0.75);
});

it('gives the same tokens and bytes as on it', async () => {
  const { code, stdout, stderr } = await runScript(`${prelude}
    const text = 'She had always hoped. <|end|> naïve 😀';
    const settings = { addSpecialTokens: true };
    const [small, large] = await Promise.all([bundled, ' '.repeat(2 ** 20) + bundled].map((json) => Tokenizer.load(json)));
    require('node:assert').deepEqual(small.vocabulary, large.vocabulary);
    require('node:assert').deepEqual(await small.encode(text, settings), await large.encode(text, settings));
    console.log('same');`);
  expect({ code, stdout, stderr }).toEqual({ code: 0, stdout: 'same\n', stderr: '' });
});

it.each([
  ['no JSON', `bundled + '{'`, 'ERR_MODEL_FORMAT', 'tokenizer.json is not JSON'],
  ['broken', `tokenizer(0, (j) => (j.normalizer = { type: 'Prepend', prepend: '' }))`, 'ERR_MODEL_FORMAT', 'Prepend'],
  ['of an unknown kind', `tokenizer(0, (j) => (j.decoder = { type: 'CTC' }))`, 'ERR_UNSUPPORTED_MODEL', 'CTC'],
])('that is %s is refused as a small one is, and its thread ends', async (_, json, errorCode, message) => {
  const { code, stdout, stderr } = await runScript(`${prelude}
    await Tokenizer.load(' '.repeat(2 ** 20) + ${json}).catch((e) => console.log(e.name, e.code, e.message));`);
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  expect(stdout).toContain(errorCode);
  expect(stdout).toContain(message);
});
