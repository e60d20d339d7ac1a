-- What wrk sends and prints: whole requests from a folder's list in turn; a line of JSON like traffic.py's.
--   wrk -t1 -c16 -d10 -s wrk.lua http://127.0.0.1:PORT -- LIST_OF_REQUEST_FILES
local threads = {}

function setup(thread)
  table.insert(threads, thread)
end

function init(arguments)
  requests, at, counts = {}, 0, {}
  for name in io.lines(arguments[1]) do
    local file = assert(io.open(name, "rb"))
    table.insert(requests, file:read("*a"))
    file:close()
  end
end

function request()
  at = at % #requests + 1
  return requests[at]
end

function response(status)
  if status ~= 200 then
    local name = tostring(status)
    counts[name] = (counts[name] or 0) + 1
  end
end

function done(summary, latency)
  local errors, bad = {}, 0
  for _, thread in ipairs(threads) do
    for status, count in pairs(thread:get("counts")) do
      errors[status], bad = (errors[status] or 0) + count, bad + count
    end
  end
  local unanswered = summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout
  if unanswered > 0 then errors["unanswered"] = unanswered end
  local named, times = {}, {}
  for status, count in pairs(errors) do table.insert(named, string.format('"%s": %d', status, count)) end
  for place = 1, #latency do
    local value, count = latency(place)
    for _ = 1, count do table.insert(times, string.format("%.3f", value / 1000)) end
  end
  io.stderr:write(string.format('{"seconds": %.6f, "latencies": [%s], "errors": {%s}, "cpu_seconds": 0, "late": 0}\n',
    summary.duration / 1e6, table.concat(times, ","), table.concat(named, ",")))
end
