// Uses pages in headless Chromium as a person does.
// Usage: node browser.mjs
// A line of the input is a call, a line of the output what came of it, {"value": ...} or {"error": "..."}:
//   {"method": "open", "arguments": ["file:///...", {"width": 375, "dark": true}]}
// The methods are below. The browser ends with the input.

import { accessSync, constants } from 'node:fs'
import { delimiter, join } from 'node:path'
import { createInterface } from 'node:readline'
import puppeteer from 'puppeteer-core'

// Long enough for a busy machine; whoever waits for something else waits in vain.
const PATIENCE_MS = 60000

function chromium () {
  for (const folder of (process.env.PATH ?? '').split(delimiter)) {
    try {
      accessSync(join(folder, 'chromium'), constants.X_OK)
      return join(folder, 'chromium')
    } catch {}
  }
  throw new Error('chromium is missing; run scripts/test, which installs it')
}

const browser = await puppeteer.launch({
  executablePath: chromium(),
  pipe: true,
  args: [
    // Containers have little shared memory, and Chromium's own sandbox does not start as root.
    '--disable-dev-shm-usage',
    ...(process.getuid() === 0 ? ['--no-sandbox'] : []),
    // Whatever a page asks for, nothing leaves this machine.
    '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1'
  ]
})

let page, seen

const METHODS = {
  // A fresh page, in a profile of its own. All that it asks for and complains about is kept for `seen`.
  async open (url, { width = 1280, dark = false } = {}) {
    await page?.browserContext().close()
    page = await (await browser.createBrowserContext()).newPage()
    page.setDefaultTimeout(PATIENCE_MS)
    const now = seen = { requests: [], complaints: [] }
    page.on('request', request => now.requests.push(request.url()))
    page.on('console', message => { if (['error', 'warn'].includes(message.type())) now.complaints.push(message.text()) })
    page.on('pageerror', error => now.complaints.push(String(error)))
    page.on('dialog', dialog => { now.complaints.push(dialog.message()); dialog.dismiss() })
    await page.setViewport({ width, height: 900 })
    await page.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: dark ? 'dark' : 'light' }])
    await page.goto(url)
  },

  // Puts text into a field, in place of what is there.
  fill: (selector, text) => page.locator(selector).fill(text),

  // Chooses files in a file input.
  async choose (selector, ...files) {
    await (await page.waitForSelector(selector)).uploadFile(...files)
  },

  press: selector => page.locator(selector).click(),

  // What a person reads in an element, once it is there.
  async text (selector) {
    return (await page.waitForSelector(selector, { visible: true })).evaluate(element => element.innerText)
  },

  // Waits until an expression is true in the page.
  async until (expression) {
    await page.waitForFunction(expression)
  },

  // The value of an expression in the page; a function is called with the arguments.
  run: (expression, ...values) => page.evaluate(values.length === 0 ? expression : `(${expression})(...${JSON.stringify(values)})`),

  // What the page asked for and complained about since it was opened.
  seen: () => seen,

  // A picture of the whole page; what was just opened has its height from the next frame on.
  async shot (path) {
    await page.evaluate(() => new Promise(resolve => requestAnimationFrame(() => requestAnimationFrame(resolve))))
    await page.screenshot({ path, fullPage: true })
  }
}

try {
  for await (const line of createInterface({ input: process.stdin })) {
    const { method, arguments: given } = JSON.parse(line)
    let answer
    try {
      answer = { value: await METHODS[method](...given) ?? null }
    } catch (error) {
      answer = { error: String(error) }
    }
    process.stdout.write(`${JSON.stringify(answer)}\n`)
  }
} finally {
  await browser.close()
}
