// A bucket: a server that speaks S3 and checks signatures.
// Usage: node bucket.mjs DIRECTORY [PORT]
// It prints its port, and ends with the input. The access key is S3RVER, and so is the secret key.

import S3rver from 's3rver'

const [directory, port] = process.argv.slice(2)
const server = new S3rver({
  address: '127.0.0.1',
  port: Number(port ?? 0),
  directory,
  silent: true,
  configureBuckets: [{ name: 'drops' }]
})
const { port: bound } = await server.run()
console.log(`port ${bound}`)
process.stdin.resume()
process.stdin.on('end', () => process.exit(0))
