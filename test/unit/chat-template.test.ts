import { readFileSync } from 'node:fs';
import path from 'node:path';

import { InvalidArgumentError, ModelFormatError } from '../../lib/errors';
import { ChatTemplate } from '../../lib/tokenizer/chat-template';
import { TemplateWorker } from '../../lib/tokenizer/template-worker';
import { bundledModel } from '../helpers/engine';

const opened: ChatTemplate[] = [];
afterEach(() => Promise.all(opened.splice(0).map((template) => template.close())));

const make = (chat_template: unknown, config: object = {}): ChatTemplate => {
  const template = ChatTemplate.find({ chat_template, ...config }, undefined)!;
  opened.push(template);
  return template;
};
const PLAIN = { addGenerationPrompt: true, continueFinalMessage: false };
const CONTINUE = { addGenerationPrompt: false, continueFinalMessage: true };
const USER = [{ role: 'user', content: 'hi' }];

describe('a chat template', () => {
  it('of the bundled model makes the text that the model was trained on', async () => {
    const config: unknown = JSON.parse(readFileSync(path.join(bundledModel, 'tokenizer_config.json'), 'utf8'));
    const template = ChatTemplate.find(config, undefined)!;
    opened.push(template);
    const messages = [{ role: 'user', content: 'What does "river" mean?' }];
    expect(await template.render(messages, PLAIN)).toBe(
      '<|bos|><|user|>\nWhat does "river" mean?<|end|>\n<|assistant|>\n',
    );
  });

  it('sees messages, special tokens, and what Hugging Face passes', async () => {
    const source =
      "{{ bos_token }}{{ eos_token }}{% for m in messages %}{{ m.role }}:{{ m['content'] }};{% endfor %}" +
      '{{ add_generation_prompt }}{{ tools is none }}{{ pad_token is defined }}';
    const template = make(source, { bos_token: '<s>', eos_token: { content: '</s>' }, pad_token: null });
    expect(await template.render(USER, PLAIN)).toBe('<s></s>user:hi;truetruefalse');
  });

  it('is the default one of several', async () => {
    const template = make([
      { name: 'tool_use', template: 'a' },
      { name: 'default', template: 'b' },
    ]);
    expect(await template.render(USER, PLAIN)).toBe('b');
  });

  it('comes from chat_template.jinja first', async () => {
    const template = ChatTemplate.find({ chat_template: 'a' }, 'b')!;
    opened.push(template);
    expect(await template.render(USER, PLAIN)).toBe('b');
  });

  it('may be absent', () => {
    expect(ChatTemplate.find(undefined, undefined)).toBeNull();
    expect(ChatTemplate.find({}, undefined)).toBeNull();
    expect(ChatTemplate.find({ chat_template: null }, undefined)).toBeNull();
  });

  it.each([
    [[]],
    [5],
    [{ chat_template: 5 }],
    [{ chat_template: [{ name: 'other', template: 'a' }] }],
    [{ chat_template: [null] }],
  ])('in a config like %j is refused', (config) =>
    expect(() => ChatTemplate.find(config, undefined)).toThrow(ModelFormatError),
  );

  it('renders in order, also many at once', async () => {
    const template = make('{{ messages[0].content }}');
    const texts = Array.from({ length: 20 }, (_, i) => String(i));
    const rendered = texts.map((content) => template.render([{ role: 'user', content }], PLAIN));
    expect(await Promise.all(rendered)).toEqual(texts);
  });

  it.each([
    ["{{ raise_exception('roles must alternate') }}", 'roles must alternate'],
    ['{{ nothing() }}', 'Cannot call'],
  ])('that fails, as %s does, refuses the messages with its words', async (source, words) => {
    const refused = make(source).render(USER, PLAIN);
    await expect(refused).rejects.toThrow(InvalidArgumentError);
    await expect(refused).rejects.toThrow(`the chat template refuses the messages: ${words}`);
  });

  it.each([
    ['does not parse', '{% if %}'],
    ['is nested too deeply', '{% if true %}'.repeat(100_000)],
    ['takes all memory', '{% for i in range(1000000000) %}x{% endfor %}'],
  ])('that %s is broken, and others still render', async (_, source) => {
    const template = make(source);
    await expect(template.render(USER, PLAIN)).rejects.toThrow(ModelFormatError);
    await expect(template.render(USER, PLAIN)).rejects.toThrow('the chat template is broken');
    expect(await make('fine').render(USER, PLAIN)).toBe('fine');
  });

  it('reaches nothing of the host', async () => {
    const template = make('{{ process is defined }}{{ require is defined }}{{ messages[0].constructor is defined }}');
    expect(await template.render(USER, PLAIN)).toBe('falsefalsefalse');
  });

  it('leaves the last message open where it is to be continued', async () => {
    const template = make('{% for m in messages %}[{{ m.role }}]{{ m.content | trim }}[end]{% endfor %}');
    const messages = [...USER, { role: 'assistant', content: 'A river is ' }];
    expect(await template.render(messages, CONTINUE)).toBe('[user]hi[end][assistant]A river is');
    const keeping = make('{% for m in messages %}[{{ m.role }}]{{ m.content }}[end]{% endfor %}');
    expect(await keeping.render(messages, CONTINUE)).toBe('[user]hi[end][assistant]A river is ');
    await expect(make('nothing').render(messages, CONTINUE)).rejects.toThrow('continueFinalMessage must be false');
    const upper = make('{% for m in messages %}{{ m.content | replace("river", "lake") }}{% endfor %}');
    await expect(upper.render(messages, CONTINUE)).rejects.toThrow('continueFinalMessage must be false');
  });

  it.each(['end', 'e', '|', '>', '', ' ', 'hi', '<|assistant|>'])(
    'leaves the last message open where it ends, also when it says %j',
    async (content) => {
      const source =
        '{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}{% if messages[-1].content == "" %}empty{% endif %}';
      const messages = [...USER, { role: 'assistant', content }];
      expect(await make(source).render(messages, CONTINUE)).toBe(`<|user|>\nhi<|end|>\n<|assistant|>\n${content}`);
    },
  );

  it('trims an open message only where the template trims messages', async () => {
    const messages = [{ role: 'assistant', content: '  A river \n' }];
    expect(await make('[{{ messages[0].content | trim }}]').render(messages, CONTINUE)).toBe('[A river');
    expect(await make('[{{ messages[0].content }}]').render(messages, CONTINUE)).toBe('[  A river \n');
    const nothing = [{ role: 'assistant', content: ' ' }];
    expect(await make('[ {{ messages[0].content | trim }} ]').render(nothing, CONTINUE)).toBe('[ ');
  });
});

describe('the thread of a template', () => {
  const ENDLESS =
    '{% if go %}{% for i in range(100000) %}{% for j in range(100000) %}{% for k in range(100000) %}{% endfor %}{% endfor %}{% endfor %}{% endif %}done';

  it('is ended with a rendering that takes too long, without holding the event loop; the next gets a new one', async () => {
    const worker = new TemplateWorker(ENDLESS, 300);
    let turns = 0;
    const timer = setInterval(() => turns++, 5);
    const endless = worker.render({ go: true });
    const next = worker.render({ go: false });
    await expect(endless.finally(() => clearInterval(timer))).rejects.toThrow('it took longer than 300 ms');
    expect(turns).toBeGreaterThan(10);
    expect(await next).toBe('done');
    await worker.close();
  });

  it('is kept for the next rendering', async () => {
    const worker = new TemplateWorker('{{ x }}', 1000);
    await worker.render({ x: 1 });
    const before = performance.now();
    for (let i = 0; i < 20; i++) await worker.render({ x: i });
    // Twenty threads would take much longer to start.
    expect(performance.now() - before).toBeLessThan(500);
    await worker.close();
  });

  it('is ended by close, with what it renders, any number of times', async () => {
    const worker = new TemplateWorker(ENDLESS, 60_000);
    const rendering = expect(worker.render({ go: true })).rejects.toThrow('closed');
    const waiting = expect(worker.render({ go: true })).rejects.toThrow('closed');
    await Promise.all([worker.close(), worker.close()]);
    await Promise.all([rendering, waiting]);
    await expect(worker.render({ go: false })).rejects.toThrow('closed');
    await worker.close();
  });
});
