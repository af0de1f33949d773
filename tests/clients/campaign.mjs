// Drives the Campaign API through Adobe's own client, unmodified, and prints what it saw as JSON.
// Usage: node campaign.mjs BASE ORGANIZATION API_KEY TOKEN

import { createRequire } from 'node:module'

const require = createRequire(import.meta.url)
const [base, organization, apiKey, token] = process.argv.slice(2)

// The client has no setting for its host; the OpenAPI document that it keeps in memory is the way.
require('@adobe/aio-lib-campaign-standard/spec/api.json').servers[0].url = `${base}/{ORGANIZATION}/campaign`
const sdk = require('@adobe/aio-lib-campaign-standard')

const seen = {}

async function step (name, call) {
  try {
    const { status, body, url } = await call()
    seen[name] = { status, body, url }
  } catch (error) {
    seen[name] = { code: error.code, message: error.message }
  }
  return seen[name].body
}

const client = await sdk.init(organization, apiKey, token)

const created = await step('create', () => client.createProfile({ firstName: 'Rosa', lastName: 'Vega', email: 'Rosa.Vega@Example.org' }))
await step('read', () => client.getProfile(created.PKey))
await step('update', () => client.updateProfile(created.PKey, { lastName: 'Vega Ruiz', location: { city: 'Fresno' } }))
await step('readUpdated', () => client.getProfile(created.PKey))
await step('optOut', () => client.updateProfile(created.PKey, { ccpaOptOut: true }))
await step('readOptedOut', () => client.getProfile(created.PKey))
await step('createOptedOut', () => client.createProfile({ firstName: 'Ivo', email: 'ivo@example.org', ccpaOptOut: true }))
await step('readRelative', () => client.getDataFromRelativeUrl(`/profileAndServicesExt/profile/${created.PKey}?_lineCount=2`))
await step('updateExt', () => client.updateCustomResource('profile', created.PKey, { firstName: 'Rosalia' }))
await step('createExt', () => client.createCustomResource('profile', { lastName: 'Only' }))

const wrongToken = await sdk.init(organization, apiKey, 'no-such-token')
await step('wrongToken', () => wrongToken.getProfile(created.PKey))
const wrongKey = await sdk.init(organization, 'no-such-key', token)
await step('wrongKey', () => wrongKey.createProfile({ firstName: 'Nobody' }))
const wrongOrganization = await sdk.init('other', apiKey, token)
await step('wrongOrganization', () => wrongOrganization.updateProfile(created.PKey, { ccpaOptOut: true }))
await step('unknownAttribute', () => client.updateProfile(created.PKey, { shoeSize: 44 }))
await step('unreadableKey', () => client.getProfile('@bogus'))

await step('remove', () => client.deleteCustomResource('profile', created.PKey))
await step('readRemoved', () => client.getProfile(created.PKey))

console.log(JSON.stringify(seen))
