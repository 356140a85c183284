#!/bin/bash
# Exits 0 when the service on this port of the container answers /ready with 200, and prints what
# it says. Written in bash alone, since the images hold neither curl nor wget.
port=$1
exec 3<>"/dev/tcp/127.0.0.1/$port" || exit 1
printf 'GET /ready HTTP/1.1\r\nHost: 127.0.0.1:%s\r\nConnection: close\r\n\r\n' "$port" >&3
mapfile -t answer <&3
printf '%s\n' "${answer[-1]}"
[[ ${answer[0]} == 'HTTP/1.1 200 '* ]]
