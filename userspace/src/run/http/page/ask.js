// Asks the server this page came from. Every answer keeps all 64 bits of its
// numbers: what a JavaScript number cannot hold exactly becomes a string.

/** Longest wait for an answer, milliseconds. */
const ANSWER_MS_MAX = 4000;

let token = sessionStorage.getItem('token') ?? '';

/** Remembers the token of a server that asks for one, until the tab is closed. */
export function use(text) {
  token = text;
  sessionStorage.setItem('token', text);
}

/** An answer that is none: `status` is 0 when the server is away. */
export class Refusal extends Error {
  constructor(status, error, mend) {
    super(error);
    this.status = status;
    this.mend = mend;
  }
}

/** JSON with large whole numbers as strings. */
export function parse(text) {
  return JSON.parse(
    text.replace(/"(?:[^"\\]|\\.)*"|\d{16,}/g, (part) => (part[0] === '"' ? part : `"${part}"`)),
  );
}

async function open(path, signal) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  let response;
  try {
    response = await fetch(path, { headers, signal, cache: 'no-store' });
  } catch {
    throw new Refusal(0, 'The server does not answer.', 'It may be stopped: start it again, or look at its log.');
  }
  if (response.ok) return response;
  let said = {};
  try {
    said = parse(await response.text());
  } catch {
    // Something between us and the server answered.
  }
  const error = said.error ?? `the answer has the status ${response.status}`;
  throw new Refusal(response.status, error, said.mend ?? '');
}

/** The JSON of a route. */
export async function ask(path) {
  const response = await open(path, AbortSignal.timeout(ANSWER_MS_MAX));
  try {
    return parse(await response.text());
  } catch {
    throw new Refusal(0, 'The server broke off its answer.', '');
  }
}

/** The text of a file of this page. */
export async function file(name) {
  return (await open(`/page/${name}`, AbortSignal.timeout(ANSWER_MS_MAX))).text();
}

/** Calls `opened` once and `tell(event, data)` for each line of a stream; returns at its end. */
export async function follow(path, signal, opened, tell) {
  const response = await open(path, signal);
  opened();
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  for (;;) {
    let part;
    try {
      part = await reader.read();
    } catch {
      return;
    }
    if (part.done) return;
    const blocks = (rest + part.value).split('\n\n');
    rest = blocks.pop();
    for (const block of blocks) {
      const field = (name) => {
        const line = block.split('\n').find((line) => line.startsWith(`${name}: `));
        return line?.slice(name.length + 2);
      };
      const data = field('data');
      if (data) tell(field('event') ?? 'message', parse(data));
    }
  }
}
