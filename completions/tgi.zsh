#compdef tgi

_tgi_completion() {
  eval $(env _TYPER_COMPLETE_ARGS="${words[1,$CURRENT]}" _TGI_COMPLETE=complete_zsh tgi)
}

compdef _tgi_completion tgi

if [[ $funcstack[1] == _tgi ]]; then
  _tgi_completion
fi
