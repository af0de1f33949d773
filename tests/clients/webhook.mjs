// Checks a signed alert with the library of Standard Webhooks, as a receiver would.
// Usage: node webhook.mjs SECRET < {"headers": {...}, "body": "..."}
// Prints the body that it believes. Ends with 1 if it does not believe it.

import { text } from 'node:stream/consumers'
import { Webhook } from 'standardwebhooks'

const { headers, body } = JSON.parse(await text(process.stdin))
try {
  console.log(JSON.stringify(new Webhook(process.argv[2]).verify(body, headers)))
} catch (error) {
  console.error(error.message)
  process.exitCode = 1
}
