// A conversation: messages in, through the chat template that comes with the checkpoint, an answer out.
import { fileURLToPath } from 'node:url';

import { Engine } from 'heddle';

const engine = await Engine.create({ model: fileURLToPath(new URL('models/tiny-lexicon', import.meta.url)) });

// 1. The engine keeps no conversation; you do. Every call brings all of it.
const messages = [];

async function ask(content) {
  messages.push({ role: 'user', content });
  console.log(`> ${content}`);
  const stream = engine.chat(messages, { temperature: 0, maxTokens: 80 });
  for await (const { text } of stream) process.stdout.write(text);
  console.log('\n');

  // 2. The answer becomes part of what the next question is asked with.
  messages.push({ role: 'assistant', content: await stream.text() });
  return stream.final();
}

await ask('What does "river" mean?');
const { usage } = await ask('What does "harbor" mean?');

// 3. That costs little: the beginning of the second prompt is in the KV cache already, and is not computed again.
console.log(`${usage.cachedTokens} of ${usage.promptTokens} prompt tokens came from the prefix cache`);

await engine.close();
