// A bucket: a server that speaks S3. It knows no signatures of version 4, so those are checked here, by what came over the wire.
// Usage: node bucket.mjs DIRECTORY [PORT]
// It prints its port, and ends with the input. The access key is S3RVER, and so is the secret key.

import { createHash, createHmac } from 'node:crypto'
import S3rver from 's3rver'

const [directory, port] = process.argv.slice(2)
const server = new S3rver({
  address: '127.0.0.1',
  port: Number(port ?? 0),
  directory,
  silent: true,
  configureBuckets: [{ name: 'drops' }]
})
const AUTHORIZATION =
  /^AWS4-HMAC-SHA256 Credential=S3RVER\/((\d{8})\/([^/]+)\/s3\/aws4_request), SignedHeaders=([a-z0-9;-]+), Signature=([0-9a-f]{64})$/
const isSigned = (ctx) => {
  const [, scope, day, region, names, signature] = AUTHORIZATION.exec(ctx.get('authorization')) ?? []
  const must = ['host', 'x-amz-content-sha256', 'x-amz-date']
  if (!names || !must.every((name) => names.split(';').includes(name))) return false
  const at = ctx.get('x-amz-date')
  const [path, query = ''] = ctx.req.url.split('?')
  const headers = names.split(';').map((name) => `${name}:${ctx.get(name).trim()}\n`)
  const canonical = [ctx.method, path, query, headers.join(''), names, ctx.get('x-amz-content-sha256')].join('\n')
  const digest = createHash('sha256').update(canonical).digest('hex')
  const mac = (key, text) => createHmac('sha256', key).update(text).digest()
  const key = [day, region, 's3', 'aws4_request'].reduce(mac, 'AWS4S3RVER')
  return mac(key, ['AWS4-HMAC-SHA256', at, scope, digest].join('\n')).toString('hex') === signature
}
server.middleware.unshift(async (ctx, next) => {
  if (isSigned(ctx)) return next()
  ctx.status = 403
  ctx.type = 'application/xml'
  ctx.body = '<Error><Code>SignatureDoesNotMatch</Code></Error>'
})
const { port: bound } = await server.run()
console.log(`port ${bound}`)
process.stdin.resume()
process.stdin.on('end', () => process.exit(0))
