#!/usr/bin/env ruby
# frozen_string_literal: true

# The details service of a book shop. It asks the Books API for what it shows:
#
#   WITH_ISTIO=true   as plain HTTP to port 443; whoever is on the way opens TLS
#   otherwise         as HTTPS, with TLS of its own
#
# There is not a line about a proxy here: Net::HTTP finds it in the variable http_proxy, or there is none.
# Standard library only, and of that a plain TCPServer: `details.rb` prints the port it listens on.

require 'json'
require 'net/http'
require 'socket'
require 'uri'

BOOKS_PORT = Integer(ENV.fetch('BOOKS_PORT', '443'))
SCHEME = ENV['WITH_ISTIO'] == 'true' ? 'http' : 'https'
HOST = ENV.fetch('BOOKS_HOST', 'www.googleapis.com')
ISBN = '0486424618'

def ask_books(isbn)
  uri = URI("#{SCHEME}://#{HOST}:#{BOOKS_PORT}/books/v1/volumes?q=isbn:#{isbn}")
  http = Net::HTTP.new(uri.host, uri.port)
  http.use_ssl = uri.scheme == 'https'
  http.open_timeout = http.read_timeout = 10
  http.request(Net::HTTP::Get.new(uri))
rescue Net::HTTPExceptions => e # the answer to CONNECT was no
  e.response
end

def details(id)
  response = ask_books(ISBN)
  return refused(response) unless response.is_a?(Net::HTTPSuccess)

  book = JSON.parse(response.body).fetch('items').first.fetch('volumeInfo')
  isbn = book['industryIdentifiers'].to_h { |known| [known['type'], known['identifier']] }
  [200, { id: id, title: book['title'], author: book['authors'].first, year: book['publishedDate'].to_i,
          pages: book['pageCount'], publisher: book['publisher'], language: book['language'],
          'ISBN-10': isbn['ISBN_10'], 'ISBN-13': isbn['ISBN_13'] }]
end

def refused(response)
  [502, { error: "#{HOST} could not be asked: #{response.code} #{response.message}",
          reason: response['x-egress-reason'], body: response.body }]
end

def answer(line)
  case line
  when %r{\AGET /details/(\d+) } then details(Regexp.last_match(1).to_i)
  when %r{\AGET /health } then [200, { status: 'Details is healthy' }]
  else [404, { error: 'there is nothing here' }]
  end
rescue StandardError => e
  [502, { error: "#{HOST} could not be asked: #{e.class}: #{e.message}" }]
end

def serve(client)
  request = client.gets("\r\n").to_s
  nil until ["\r\n", nil].include?(client.gets("\r\n"))
  status, content = answer(request)
  body = JSON.generate(content)
  client.write("HTTP/1.1 #{status} #{status == 200 ? 'OK' : 'Failed'}\r\nContent-Type: application/json\r\n" \
               "Content-Length: #{body.bytesize}\r\nConnection: close\r\n\r\n#{body}")
rescue SystemCallError
  nil # the client is gone
ensure
  client.close
end

trap('TERM') { exit!(0) }
address, port = ENV.fetch('LISTEN', '127.0.0.1:0').split(':')
server = TCPServer.new(address, Integer(port))
$stdout.sync = true
puts "details (Ruby #{RUBY_VERSION}) listens on port #{server.addr[1]}"
loop { Thread.new(server.accept) { |client| serve(client) } }
