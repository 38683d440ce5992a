#!/bin/sh
# Installs into target/tools the programs that the tests run beside our own: faults, and conformance judged by others.
set -eu
tools=$(dirname "$0")/../target/tools
mkdir -p "$tools"
tools=$(cd "$tools" && pwd)

# Links are made anew each time: they say which version is the one.

go_tool() { # NAME PACKAGE VERSION
  if [ ! -x "$tools/bin/$1-$3" ]; then
    command -v go >/dev/null || { echo "please install Go first: https://go.dev/dl" >&2; exit 1; }
    GOBIN="$tools/build" GOFLAGS= go install "$2@$3"
    mv "$tools/build/$(basename "$2")" "$tools/bin/$1-$3"
  fi
  ln -sf "$1-$3" "$tools/bin/$1"
}

python_package() { # NAME VERSION [MORE==VERSION...]: what is installed with it
  [ -e "$tools/$1-$2/installed" ] && return
  # Debian's own Python: one that another tool manages may go away under us.
  /usr/bin/python3 -m venv "$tools/$1-$2"
  environment=$tools/$1-$2 package="$1==$2"
  shift 2
  "$environment/bin/pip" install --quiet --disable-pip-version-check "$package" "$@"
  touch "$environment/installed"
}

python_tool() { # NAME VERSION
  python_package "$1" "$2"
  ln -sf "../$1-$2/bin/$1" "$tools/bin/$1"
}

python_module() { # NAME VERSION [MORE==VERSION...]: a Python that has it, as NAME-python
  python_package "$@"
  # A Python that is called by a link from elsewhere does not find its modules.
  printf '#!/bin/sh\nexec "%s" "$@"\n' "$tools/$1-$2/bin/python" >"$tools/bin/$1-python.new"
  chmod +x "$tools/bin/$1-python.new"
  mv -f "$tools/bin/$1-python.new" "$tools/bin/$1-python"
}

node_module() { # NAME VERSION
  [ -e "$tools/node/node_modules/$1/.version-$2" ] && return
  mkdir -p "$tools/node"
  # Nothing that a package would run: what drives a browser would bring its own.
  npm install --silent --no-audit --no-fund --ignore-scripts --save-exact --prefix "$tools/node" "$1@$2"
  touch "$tools/node/node_modules/$1/.version-$2"
}

mkdir -p "$tools/bin"
go_tool toxiproxy github.com/Shopify/toxiproxy/v2/cmd/server v2.5.0
go_tool h2spec github.com/summerwind/h2spec/cmd/h2spec v2.2.1+incompatible

go_tool pebble github.com/letsencrypt/pebble/v2/cmd/pebble v2.10.0
go_tool pebble-challtestsrv github.com/letsencrypt/pebble/v2/cmd/pebble-challtestsrv v2.10.0
python_tool kosoku 0.1.0
python_module grpcio 1.85.1
# What the client in Python is tested and linted with.
python_module websockets 17.4 aiohttp==3.14.5 fastapi==0.165.0 mypy==2.4.1 ruff==0.17.6 uvicorn==0.54.0
node_module playwright-core 1.65.1
node_module axe-core 4.14.1
node_module @novnc/novnc 1.7.0
