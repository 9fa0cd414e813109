// Three ways to stop a request. Each frees what it held within one step of the engine.
import { fileURLToPath } from 'node:url';

import { Engine, RequestAbortedError } from 'heddle';

const engine = await Engine.create({ model: fileURLToPath(new URL('models/tiny-lexicon', import.meta.url)) });
const long = { maxTokens: 1000, ignoreEos: true };

// 1. Leave the loop. That is all: nobody reads on, so nothing is computed on.
let count = 0;
for await (const { tokenIds } of engine.generate('Anne', long)) {
  count += tokenIds.length;
  if (count >= 10) break;
}
console.log(`left the loop after ${count} tokens`);

// 2. abort(), here after the first comma. The stream ends quietly, and final() has what was generated.
const stream = engine.generate('Mr. Knightley', long);
for await (const { text } of stream) if (text.includes(',')) stream.abort();
const { outputs } = await stream.final();
console.log(`abort() ended it by '${outputs[0].finishReason}' after ${outputs[0].tokenIds.length} tokens`);

// 3. An AbortSignal, for what belongs to a larger task: a timeout, or a client that went away. Iteration and final()
//    reject then, with an error that is named AbortError, as those of fetch() are, and carries what was generated.
try {
  const request = engine.generate('Elizabeth', long, { signal: AbortSignal.timeout(50) });
  for await (const { text } of request) process.stdout.write(text);
  console.log('\nit was faster than the timeout');
} catch (error) {
  if (!(error instanceof RequestAbortedError)) throw error;
  console.log(`\n${error.name}, ${error.code}: ${error.output.usage.completionTokens} tokens until then`);
}

// 4. Everything is free again.
await engine.close({ drain: true });
