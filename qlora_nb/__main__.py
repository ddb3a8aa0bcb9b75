"The command as a module, which torchrun starts: `torchrun --nproc-per-node 2 -m qlora_nb finetune`."
import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
