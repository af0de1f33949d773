// Runs the verifier of the page /verify outside a browser, on the very text that the page has.
// KEY may have several lines, for a log that changed its key.
// Usage: node verify.mjs KEY [--witness KEY]... FILE...                                each file is a receipt
//        node verify.mjs KEY [--witness KEY]... --checkpoints OLDER NEWER [PROOF]
//        node verify.mjs KEY [--witness KEY]... --log CHECKPOINT ENTRIES
// Prints one line of JSON for each check. Ends with 0 if all is good, 1 if not, 2 if it cannot begin.

import { readFile } from 'node:fs/promises'

const page = await readFile(new URL('../../crates/desist/src/web/pages/verify.html', import.meta.url), 'utf8')
const [, verifier, ...more] = page.split(/^\/\/ verifier (?:begins|ends)$/m)
if (verifier === undefined || more.length !== 1) throw new Error('the page does not have the two marks of the verifier once each')
const names = ['isAble', 'readKey', 'verifyReceipt', 'verifyCheckpoints', 'verifyLog']
const source = `${verifier}\nexport { ${names.join(', ')} }`
const { isAble, readKey, verifyReceipt, verifyCheckpoints, verifyLog } = await import(`data:text/javascript,${encodeURIComponent(source)}`)

function stop (why) {
  console.error(why)
  process.exit(2)
}

const [keyText, ...rest] = process.argv.slice(2)
const witnessTexts = []
while (rest[0] === '--witness') witnessTexts.push(rest.splice(0, 2)[1] ?? '')
const mode = rest[0]?.startsWith('--') ? rest.shift() : '--receipts'
const counts = { '--receipts': [1, Infinity], '--checkpoints': [2, 3], '--log': [2, 2] }
const [fewest, most] = counts[mode] ?? stop(`${mode}: unknown; see the first lines of this file`)
if (keyText === undefined || rest.length < fewest || rest.length > most) stop('arguments are missing, or too many; see the first lines of this file')
if (!await isAble()) stop('this Node cannot check Ed25519 signatures with WebCrypto; use version 20 or later')

const readKeys = async texts => Promise.all(texts.map(text => readKey(text).catch(error => stop(error.message))))
const logs = await readKeys(keyText.split('\n').filter(line => line !== ''))
const witnesses = await readKeys(witnessTexts)

let isAllGood = true

async function print (file, check) {
  let verdict
  try {
    verdict = await check()
  } catch (error) {
    verdict = { result: 'unreadable', link: null, why: error.message, trust: null }
  }
  const { result, link, why, trust, unchecked } = verdict
  isAllGood &&= result === 'good'
  console.log(JSON.stringify({ file, result, link, trust, why, ...(unchecked ? { unchecked } : {}) }))
}

const [one, two, three] = rest
if (mode === '--checkpoints') {
  await print(two, async () => verifyCheckpoints(await readFile(one), await readFile(two), three === undefined ? null : await readFile(three), logs, witnesses))
} else if (mode === '--log') {
  await print(two, async () => verifyLog(await readFile(one), await readFile(two), logs, witnesses))
} else {
  for (const file of rest) await print(file, async () => verifyReceipt(await readFile(file), logs, witnesses))
}
process.exitCode = isAllGood ? 0 : 1
