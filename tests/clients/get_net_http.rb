# Ruby's Net::HTTP: the URLs are arguments, each answer becomes a line of JSON.
require "json"
require "net/http"

ARGV.each do |url|
  started = Process.clock_gettime(Process::CLOCK_MONOTONIC)
  begin
    answer = Net::HTTP.get_response(URI(url))
    told = { status: answer.code.to_i, text: answer.body }
  rescue StandardError => error
    told = { error: "#{error.class}: #{error.message}" }
  end
  seconds = Process.clock_gettime(Process::CLOCK_MONOTONIC) - started
  puts JSON.generate({ url: url, seconds: seconds, **told })
end
