"""`python -m kerasformer`: the same as `kerasformer`."""

import sys

from kerasformer.cli import main

sys.exit(main())
