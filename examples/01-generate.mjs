// The smallest program: load a model, continue a text, print it.
// `model` is a folder in the Hugging Face layout: config.json, tokenizer.json and *.safetensors.
import { fileURLToPath } from 'node:url';

import { Engine } from 'heddle';

const engine = await Engine.create({ model: fileURLToPath(new URL('models/tiny-lexicon', import.meta.url)) });
const stream = engine.generate('It is a truth universally acknowledged, that', { maxTokens: 64, seed: 1 });
console.log(await stream.text());
await engine.close();
