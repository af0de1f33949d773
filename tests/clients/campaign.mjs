// Makes calls with Adobe's own client, unmodified, and says what came of each.
// Usage: node campaign.mjs BASE
// A line of the input is a call, a line of the output what the caller of that method sees:
//   {"as": [ORGANIZATION, API_KEY, TOKEN], "method": "getProfile", "arguments": ["@..."]}

import { createInterface } from 'node:readline'
import { createRequire } from 'node:module'

const require = createRequire(import.meta.url)
const [base] = process.argv.slice(2)

// The client has no setting for its host; the OpenAPI document that it keeps in memory is the way.
require('@adobe/aio-lib-campaign-standard/spec/api.json').servers[0].url = `${base}/{ORGANIZATION}/campaign`
const sdk = require('@adobe/aio-lib-campaign-standard')

// What a call resolved to: the client's own response, a plain one of `fetch`, or the value of a JSON body.
async function shown (result) {
  if (result === null || typeof result !== 'object' || !('statusText' in result)) return { value: result }
  const { ok, status, statusText, url } = result
  if (typeof result.json === 'function') {
    return { plain: true, ok, status, statusText, url, type: result.headers.get('content-type'), body: await result.json() }
  }
  // `body` is left out of the line where the client left it undefined.
  return { plain: false, ok, status, statusText, url, type: result.headers['content-type'], text: result.text, body: result.body, obj: result.obj }
}

// One client for each set of credentials, as a program would have it.
const clients = new Map()

async function seen ({ as, method, arguments: given }) {
  try {
    const id = JSON.stringify(as)
    if (method === 'init' || !clients.has(id)) clients.set(id, await sdk.init(...as))
    const client = clients.get(id)
    return method === 'init' ? { methods: Object.getOwnPropertyNames(Object.getPrototypeOf(client)) } : await shown(await client[method](...given))
  } catch (error) {
    return { name: error.name, code: error.code, message: error.message }
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  process.stdout.write(JSON.stringify(await seen(JSON.parse(line))) + '\n')
}
